"""One contender on folds of the rows: what it says of rows that it was not trained on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from typing_extensions import Unpack

from ..answers import Evaluation, Outcome, summarize
from ..base import Base
from ..data import Row, split
from ..methods import make_method
from ..prepared import Prepared
from ..runfile import CacheSpec
from ..tasks import Task
from ..training import Result, RunOptions, train
from ..types import Progress, ignore_progress, named
from .contenders import Contender

Load = Callable[[Any, Progress], Base]
"""A base by its section of a run file; the same one for the same section."""


@dataclass(frozen=True)
class Tried:
    """A contender, and what it said of rows that it was not trained on.

    Attributes:
        evaluation: of the rows that were held out once, in their order.
        counts: how many rows each of them counts for.
        seconds: of training and answering on all folds.
        result: what was learned, where it is from all rows that are not held out for good; None of several folds.
    """

    contender: Contender
    evaluation: Evaluation
    counts: tuple[float, ...]
    seconds: float
    result: Result | None = None

    @property
    def log_loss(self) -> float:
        """Mean −log p of the right labels."""
        return mean_loss(self.evaluation, self.counts)


def mean_loss(evaluation: Evaluation, counts: Sequence[float]) -> float:
    """Mean −log p of the right labels, where rows count for several or for less than one."""
    return float(np.average([outcome.nll for outcome in evaluation.outcomes], weights=counts))


class Kept(Protocol):
    """What runs have prepared, so that a row is encoded once for all folds and contenders on a base."""

    def of(self, base: Base) -> list[Prepared]:
        """For `prepare(reuse=…)`, the newest first."""

    def keep(self, ready: Prepared) -> None:
        """Keep one for the next runs."""


class Trainer:
    """Trains contenders on one task.

    Args:
        task: a classification.
        load: gives a contender's base.
        kept: what was encoded, of this and earlier calls.
        spec: settings of training; those left out are the methods' own.
    """

    def __init__(
        self,
        task: Task,
        load: Load,
        kept: Kept,
        spec: Mapping[str, Any],
        seed: int = 0,
        cache: CacheSpec | None = None,
        progress: Progress = ignore_progress,
    ) -> None:
        self.task, self.spec, self.seed = task, dict(spec), seed
        self._load, self._kept = load, kept
        self._cache, self._progress = cache or CacheSpec(), progress

    def train(self, contender: Contender, rows: Sequence[Row], part_of: int | None = None) -> Result:
        """Train a contender on rows, in memory; `part_of` as in `RunOptions`."""
        return self.run(
            contender,
            {"train": list(rows), "dev": []},
            check=False,
            part_of=part_of,
            progress=named(self._progress, contender.title),
        )

    def run(
        self,
        contender: Contender,
        rows: Mapping[str, list[Row]],
        out: Path | None = None,
        report_to: Sequence[str] = (),
        **options: Unpack[RunOptions],
    ) -> Result:
        """Train a contender on rows by split.

        Args:
            out: folder of the run.
            report_to: trackers that follow it, where it takes steps.
            options: see `RunOptions`.
        """
        base = self._load(contender.base, self._progress)
        how: RunOptions = {**options, "reuse": self._kept.of(base)}
        spec = {} if contender.cheap else {**self.spec, **({"report_to": list(report_to)} if report_to else {})}
        method = make_method(contender.method)
        result = train(base, self.task, method, out, train=spec, cache=self._cache, seed=self.seed, rows=rows, **how)
        self._kept.keep(result.prepared)
        return result

    def outcomes(self, result: Result, rows: Sequence[Row]) -> list[Outcome]:
        """What was learned says of rows."""
        ready = result.prepared
        return ready.form.predict(ready, ready.form.encode_rows(rows), self._progress)


def folds_of(task: Task, rows: Sequence[Row], count: int, seed: int) -> list[list[int]]:
    """Indices of the rows by fold; each fold has the labels in about the same proportions."""
    index = {id(row): place for place, row in enumerate(rows)}
    names = {f"fold{number}": 1 / count for number in range(1, count)}
    contents = {task.content(row) for row in rows}
    # the same text in two folds would be known from outside
    parts = split(rows, {**names, "rest": None}, task.label, seed, task.content if len(contents) < len(rows) else None)
    return [sorted(index[id(row)] for row in part) for part in parts.values()]


def cross_validate(
    trainer: Trainer, contender: Contender, rows: Sequence[Row], folds: Sequence[Sequence[int]]
) -> Tried:
    """Train on all folds but one and ask that one, so every row is asked once by what was not trained on it.

    Each row is read as often as it would be among all rows. More steps on fewer rows would fit them closer, and the log
    loss of a fold would say little about training on all rows.

    Args:
        folds: indices of the rows. With a single fold its rows are held out and all others are trained on, in all
            steps; that training is also the result.
    """
    began = time.perf_counter()
    outcomes: dict[int, Outcome] = {}
    for fold in folds:
        outside = set(fold)
        inside = [row for place, row in enumerate(rows) if place not in outside]
        result = trainer.train(contender, inside, len(rows) if len(folds) > 1 else None)
        outcomes.update(zip(fold, trainer.outcomes(result, [rows[place] for place in fold]), strict=True))
    seconds = time.perf_counter() - began
    asked = sorted(outcomes)
    evaluation = summarize(trainer.task.spec.metric, [outcomes[place] for place in asked])
    counts = tuple(rows[place].weight for place in asked)
    return Tried(contender, evaluation, counts, seconds, result if len(folds) == 1 else None)
