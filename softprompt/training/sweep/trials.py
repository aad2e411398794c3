"""The runs of a sweep: what they share, what is looked at before the first, and what came of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...base import Base
from ...data import Row
from ...errors import ConfigError, SoftpromptError
from ...methods import make_method
from ...metrics import Estimate
from ...parallel import processes
from ...prepared import Prepared
from ...runfile import BaseSpec, RunSpec
from ...storage import digest_of
from ...tasks import Task
from ...trackers import check_installed
from ...types import Notice, OnEvent, Progress, ignore_event
from ..result import Result
from ..run import check_run, train
from ..saving import starts
from .space import Point


@dataclass(frozen=True)
class Trial:
    """One run of a sweep that has ended.

    Attributes:
        settings: `key=value` settings, as `softprompt train` gets them beside the run file.
        dev: its metric on dev.
        dev_nll: mean −log-score of the right answers there.
        truncated: rows whose text was cut.
        seconds: `encode`, `train` and `evaluate`.
        test: its metric on test, of this call or an earlier one; None where it was never asked for.
    """

    name: str
    settings: tuple[str, ...]
    dev: Estimate
    dev_nll: float
    best_step: int
    truncated: int
    seconds: dict[str, float]
    test: Estimate | None = None

    @staticmethod
    def of(point: Point, result: Result) -> Trial:
        """Of what a run gave."""
        dev, tested = result.metrics["dev"], result.metrics.get("test")
        test = tested.estimate if tested is not None else result.recorded.get("test")
        best, cut, seconds = result.best_step, result.truncated, result.seconds
        return Trial(point.name, point.settings, dev.estimate, dev.nll, best, cut, seconds, test)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Trial:
        """What `as_dict` gave."""
        return Trial(**{**data, "settings": tuple(data["settings"]), "dev": Estimate.from_dict(data["dev"])})

    def compared(self) -> dict[str, Any]:
        """As `best_of` compares dev evaluations."""
        return {"value": self.dev.value, "error": self.dev.error, "nll": self.dev_nll, "trial": self}

    def as_dict(self) -> dict[str, Any]:
        """As written to `sweep.json`."""
        return {
            "name": self.name,
            "settings": list(self.settings),
            "dev": self.dev.as_dict(),
            "dev_nll": self.dev_nll,
            "best_step": self.best_step,
            "truncated": self.truncated,
            "seconds": self.seconds,
        }


class SweepContext:
    """Holds what trials share: the base, the rows that were read, the texts that were encoded."""

    def __init__(self, progress: Progress, notice: Notice) -> None:
        self.progress, self.notice = progress, notice
        self._base: tuple[BaseSpec, Base] | None = None
        self._shared: list[Prepared] = []
        self._rows: dict[str, tuple[dict[str, list[Row]], Task]] = {}

    def check(self, points: Sequence[Point]) -> None:
        """Look at all of these runs, as `train` does before it encodes a row; the first one's base is held then.

        Raises:
            SoftpromptError: one of them cannot be run; named where there are several.
        """
        for point in points:  # before a base is loaded
            starts(make_method(point.spec.method).spec.model_dump())
            check_installed(point.spec.train.trackers)
            if not self.read(Task.load(point.spec.task)).get("dev"):
                raise ConfigError("a sweep chooses by dev; set data.split.dev or give data.dev")
        apart: dict[str, Point] = {}
        for point in points:
            apart.setdefault(_without_rate_and_seed(point.spec), point)
        bases = [point.spec.base for point in apart.values()]
        for point in sorted(apart.values(), key=lambda one: bases.index(one.spec.base), reverse=True):
            self._loaded(point.spec.base)
            try:
                self.bound(point)
            except SoftpromptError as error:
                if len(points) == 1:
                    raise
                raise ConfigError(f"trial {point.name!r} cannot be run: {error}") from error

    def bound(self, point: Point) -> Prepared:
        """A run before its rows are encoded; see `check_run`."""
        spec, task = point.spec, Task.load(point.spec.task)
        base, method = self._loaded(spec.base), make_method(spec.method)
        return check_run(base, task, method, self.read(task), spec.train, spec.seed)

    def trial(
        self,
        point: Point,
        folder: Path,
        progress: Progress,
        test: bool = False,
        on_event: OnEvent = ignore_event,
    ) -> Trial:
        """Train one combination, whose rows have a dev split."""
        spec, task = point.spec, Task.load(point.spec.task)
        rows = self.read(task)
        result = train(
            self._loaded(spec.base),
            task,
            make_method(spec.method),
            folder,
            train=spec.train,
            cache=spec.cache,
            seed=spec.seed,
            rows=rows,
            reuse=self._shared,
            progress=progress,
            test=test,
            notice=self.notice,
            on_event=on_event,
        )
        self._shared = [result.prepared]
        return Trial.of(point, result)

    def _loaded(self, spec: BaseSpec) -> Base:
        if self._base is None or self._base[0] != spec:
            self._base, self._shared = None, []  # before the next one is loaded: one at a time
            self._base = (spec, spec.load(self.progress))
        return self._base[1]

    def read(self, task: Task) -> dict[str, list[Row]]:
        """The task's rows; those of a task that differs in its texts only are read once.

        Raises:
            DataError: rows that cannot be used.
        """
        settings = task.spec.model_dump(exclude={"name", "template"})
        key = str((task.folder.resolve(), settings, sorted(task.spec.template.fields)))
        if key not in self._rows:
            self._rows[key] = processes().first(task.load_data, self.progress), task
            for line in task.notices:
                self.notice(line)
        rows, read = self._rows[key]
        task.left_out, task.notices = read.left_out, read.notices
        return rows


def _without_rate_and_seed(spec: RunSpec) -> str:
    """What of a run decides whether it can be run."""
    train = spec.train.model_copy(update={"lr": None})
    return digest_of(spec.model_copy(update={"train": train, "seed": 0}).model_dump(mode="json"))
