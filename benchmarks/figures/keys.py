"""All figures by key. A new kind of record is a function here that gives (key, text) pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from softprompt.benchmarks.figures import calibration, commands, defaults, question, recipes, serving, speed, suites
from softprompt.config import suggest
from softprompt.errors import DataError

Pairs = Iterator[tuple[str, str]]
SOURCES: tuple[Callable[[Path], Pairs], ...] = (
    suites.values,
    defaults.values,
    speed.values,
    question.values,
    serving.values,
    calibration.values,
    commands.values,
    recipes.values,
)


class Keys(Mapping[str, str]):
    """What each figure's record says, as text. Records are read once, when the first figure is asked for.

    Raises:
        DataError: there is no record for a key; the message names the nearest key.
    """

    def __init__(self, root: Path):
        self._root = root

    @cached_property
    def _values(self) -> dict[str, str]:
        return {key: text for source in SOURCES for key, text in source(self._root)}

    def __getitem__(self, key: str) -> str:
        if key not in self._values:
            raise DataError(
                f"no record gives the figure {key!r}{suggest(key, self._values)}; --keys lists what there is"
            )
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def names(self) -> list[str]:
        """All keys, in order."""
        return sorted(self._values)
