"""What a sweep tries: settings with their values or ranges, as they stand on the command line."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError
from ...prepared import Prepared
from ...run_reader import load_run
from ...runfile import RunSpec, TrainSpec

_RANGE = re.compile(r"(?=.*\d)(?P<low>[-+\d.eE]*?)\.\.(?P<high>[-+\d.eE]*)(?P<scale>:.*)?")
"""What nobody writes who means no range: `../runs/a` is a path, `"1..5"` in quotes a text."""
_WHOLE = re.compile(r"[-+]?\d+")
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
_DIGITS = 4  # of a number that is drawn: enough to tell runs apart, few enough to read and to write again
_TIMES_RATE, _TIMES_LENGTH = 5.0, 4  # how far round its own value a setting is searched where nobody says it
_LENGTHS = ("length", "r")  # settings of methods that say how much is learned
_LEAST_ROOM = 4  # a prompt that is searched takes a quarter of the base's positions at most
EXAMPLE = "train.lr=0.001..0.1:log"


@dataclass(frozen=True)
class Choices:
    """A setting and its values, as they are written."""

    key: str
    values: tuple[str, ...]

    @property
    def varies(self) -> bool:
        """Whether it sets runs apart."""
        return len(set(self.values)) > 1

    @property
    def ends(self) -> tuple[str, ...]:
        """Values that stand for all of them in a check: each."""
        return self.values

    def __str__(self) -> str:
        return f"{self.key}={','.join(self.values)}"


@dataclass(frozen=True)
class Range:
    """A setting and the numbers from one end to another, both of which belong to it.

    Attributes:
        whole: integers only.
        log: each power of ten counts alike, as learning rates want it.
    """

    key: str
    low: float
    high: float
    whole: bool = False
    log: bool = False

    varies = True

    @property
    def ends(self) -> tuple[str, ...]:
        """Values that stand for all of them in a check: the lowest and the highest."""
        return self.text(self.low), self.text(self.high)

    def text(self, number: float) -> str:
        """A number as the setting has it: with four digits, and not beyond an end."""
        if self.whole:
            return str(int(number))
        near = min(max(float(f"{number:.{_DIGITS}g}"), self.low), self.high)
        short = f"{near:.{_DIGITS}g}"
        return short if float(short) == near else repr(near)

    def __str__(self) -> str:
        low, high = self.ends
        return f"{self.key}={low}..{high}{':log' if self.log else ''}"


Setting = Choices | Range


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        name: of its folder.
        settings: `key=value` settings, as `softprompt train` gets them beside the run file.
        spec: the run file with these settings.
    """

    name: str
    settings: tuple[str, ...]
    spec: RunSpec


def read_settings(items: Sequence[str]) -> list[Setting]:
    """`["a=1,2", "b=0.1..1:log"]` as settings; a value that begins with a bracket or a quote is left whole.

    Raises:
        ConfigError: a setting without `=`, or a range that is none.
    """
    return [_read(item) for item in items]


def _read(item: str) -> Setting:
    key, sign, written = item.partition("=")
    if not sign:
        raise ConfigError(f"{item!r}: expected key=value or key=a,b,c; with --optuna also key=low..high")
    values = (written,) if written[:1] in "[{\"'" else tuple(written.split(","))
    matches = [match for value in values if (match := _RANGE.fullmatch(value))]
    if not matches:
        return Choices(key, values)
    if len(values) > 1:
        raise ConfigError(f"{item!r}: a range stands alone; give a range, or a list of values")
    return _read_range(key, item, matches[0])


def _read_range(key: str, item: str, match: re.Match[str]) -> Range:
    ends, scale = (match["low"], match["high"]), match["scale"]
    if not all(_NUMBER.fullmatch(end) for end in ends):
        raise ConfigError(f"{item!r}: a range has a number at both ends, e.g. {EXAMPLE}; a text goes into quotes")
    if scale not in (None, ":log"):
        raise ConfigError(f"{item!r}: behind a range stands ':log' or nothing (got {scale!r})")
    low, high = map(float, ends)
    if not low < high:
        raise ConfigError(
            f"{item!r}: the first end of a range must be below the second; for one value write {key}={ends[0]}"
        )
    if scale and low <= 0:
        raise ConfigError(f"{item!r}: a range with ':log' must begin above 0")
    return Range(key, low, high, all(_WHOLE.fullmatch(end) for end in ends), scale is not None)


def grid(run: Path, settings: Sequence[Setting]) -> list[Point]:
    """Every combination of the values.

    Raises:
        ConfigError: a range; a combination that cannot be read, or two that would have one folder.
    """
    if ranges := [setting for setting in settings if isinstance(setting, Range)]:
        raise ConfigError(f"{str(ranges[0])!r}: a range is searched with --optuna N; without it list the values")
    return _distinct(_product(run, settings))


def corners(run: Path, settings: Sequence[Setting]) -> list[Point]:
    """Every combination of values and of ranges' ends.

    Raises:
        ConfigError: see `grid`.
    """
    return _distinct(_product(run, settings))


def _product(run: Path, settings: Sequence[Setting]) -> list[Point]:
    return [point(run, settings, values) for values in itertools.product(*(setting.ends for setting in settings))]


def _distinct(points: list[Point]) -> list[Point]:
    names = [each.name for each in points]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(
            f"two trials would be called {twice!r}; give each value once, and values that differ in letters or digits"
        )
    return points


def point(run: Path, settings: Sequence[Setting], values: Sequence[str]) -> Point:
    """The run with one value for each setting.

    Raises:
        ConfigError: the run cannot be read with them; see `load_run`.
    """
    given = [f"{setting.key}={value}" for setting, value in zip(settings, values, strict=True)]
    return Point(name_of(settings, values), tuple(given), load_run(run, given, whole=True))


def name_of(settings: Sequence[Setting], values: Sequence[str]) -> str:
    """What sets the run with these values apart from the others."""
    given = [(setting.varies, f"{setting.key}={value}") for setting, value in zip(settings, values, strict=True)]
    apart = [item for varies, item in given if varies] or [item for _, item in given]
    return "_".join(map(_short, apart)) or "run"


def _short(setting: str) -> str:
    """`train.lr=0.01` → `lr=0.01`, fit for a folder's name."""
    key, _, value = setting.partition("=")
    return re.sub(r"[^\w.=+-]+", "-", f"{key.rpartition('.')[2]}={value}")


def ranges_around(ready: Prepared, train: TrainSpec, given: Sequence[str]) -> dict[Range, float]:
    """What is searched where nobody says it, each range with the run's own value in it: its learning rate, its length.

    Args:
        ready: the run, with its method initialised.
        given: keys that have a value, and keep it.

    Raises:
        ConfigError: there is neither.
    """
    method, ranges = ready.method, dict[Range, float]()
    rate = train.lr or method.defaults.lr
    if rate and "train.lr" not in given:
        low, high = (float(f"{rate * factor:.3g}") for factor in (1 / _TIMES_RATE, _TIMES_RATE))
        ranges[Range("train.lr", low, high, log=True)] = rate
    spec = method.spec
    settled = getattr(spec, "init", None) == "artifact" or bool(getattr(spec, "groups", None))
    for name in _LENGTHS:
        length = getattr(spec, name, None)
        if settled or f"method.{name}" in given or not isinstance(length, int):
            continue
        least, most = (
            max(1, length // _TIMES_LENGTH),
            min(length * _TIMES_LENGTH, ready.base.max_positions // _LEAST_ROOM),
        )
        if least < most and length <= most:
            ranges[Range(f"method.{name}", least, most, whole=True, log=True)] = length
    if not ranges:
        raise ConfigError(
            f"method {spec.name!r} has no learning rate and no length that is left to search; name a range, e.g. {EXAMPLE}"
        )
    return ranges
