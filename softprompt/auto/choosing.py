"""Which of what was tried answers: one alone, or several together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import ensemble
from ..data import Row
from ..ensemble import fit_weights, scores_of
from ..runfile import CacheSpec
from ..tasks import Task
from ..training import Result
from ..types import Progress, ignore_progress
from .contenders import contenders_for
from .trying import Kept, Load, Trainer, Tried, cross_validate, folds_of

FOLDS = 2
"""Each costs one more training of a learned prompt, which takes as many steps on half of the rows as on all."""
FEW = 400
"""Rows below which all are cross-validated and then learned from; above, some are held out to compare by and stay so."""
ENOUGH_FOLDS = 7
"""Of so many rows a part of one in these is held out."""
PERFECT = 0.995
"""Metric of a cheap way from which on nothing dearer is tried."""
WORTH = 0.01
"""Nats a row that answering together must gain, or one answers alone: it takes one base less."""
LEAST_WEIGHT = 0.1
"""What a member must weigh, or it is left out."""


@dataclass
class Choice:
    """What was chosen, trained, and what it was chosen from.

    Attributes:
        members: what was learned, each with its weight; one answers alone.
        tried: all that was tried, best log loss first.
    """

    members: list[tuple[float, Result]]
    tried: list[Tried]

    @property
    def says(self) -> str:
        """The choice in words: `accuracy on 128 rows from outside: probe on minilm 0.98, …; chosen: probe on minilm`."""
        if not self.tried:
            return f"{_title(self.members[0][1])}, as there are too few rows to compare"
        estimates = [(one.contender.title, one.evaluation.estimate) for one in self.tried]
        compared = ", ".join(f"{title} {estimate.value:.3f}" for title, estimate in estimates)
        names = [_title(result) for _, result in self.members]
        chosen = " and ".join(names) + (" together" if len(names) > 1 else "")
        first = estimates[0][1]
        return f"{first.metric} on {first.rows} rows from outside: {compared}; chosen: {chosen}"


def choose(
    task: Task,
    rows: Sequence[Row],
    base: Any,
    method: Any,
    load: Load,
    kept: Kept,
    *,
    dev: Sequence[Row] = (),
    train: dict[str, Any] | None = None,
    seed: int = 0,
    cache: CacheSpec | None = None,
    progress: Progress = ignore_progress,
) -> Choice:
    """Try what fits the rows, choose, and train what was chosen.

    Args:
        task: a classification.
        rows: to learn from; below `FEW` all of them are.
        dev: what is compared by, instead of folds of the rows; nothing is learned from them.
        base, method: `auto`, or what is not open.
        load: gives the base of a section.
        kept: rows that were encoded, of this and earlier calls.
        train: settings of training; those left out are the methods' own.

    Raises:
        SoftpromptError: see `softprompt.train`.
    """
    trainer = Trainer(task, load, train or {}, seed, cache or CacheSpec(), progress, kept)
    every, contenders = [*rows, *dev], contenders_for(base, method)
    folds = _folds(task, rows, dev, seed)
    if not folds:  # too few rows to hold any back
        return Choice([(1.0, trainer.train(contenders[-1], rows))], [])
    tried: list[Tried] = []
    for contender in contenders:
        if not contender.cheap and any(one.evaluation.estimate.value >= PERFECT for one in tried):
            continue
        tried.append(cross_validate(trainer, contender, every, folds))
    chosen, weights, _ = weighed(tried)
    members = [
        (weight, one.result or trainer.train(one.contender, every)) for one, weight in zip(chosen, weights, strict=True)
    ]
    return Choice(members, sorted(tried, key=lambda one: one.log_loss))


def _folds(task: Task, rows: Sequence[Row], dev: Sequence[Row], seed: int) -> list[list[int]]:
    """Indices of the rows that are held out, of all rows and dev rows; in each training part there are two labels."""
    if dev:
        return [list(range(len(rows), len(rows) + len(dev)))]
    if len(rows) >= FEW:
        return folds_of(task, rows, ENOUGH_FOLDS, seed)[:1]
    second = sorted(Counter(map(task.label, rows)).values())[-2]
    return folds_of(task, rows, min(FOLDS, second), seed) if second > 1 else []


def weighed(tried: Sequence[Tried]) -> tuple[list[Tried], list[float], float | None]:
    """Which of them answer, with what weights, and their log loss together where it is not one alone.

    The one with the least log loss answers alone, unless together they gain `WORTH`.
    """
    best = min(tried, key=lambda one: one.log_loss)
    chosen = list(tried)
    while len(chosen) > 1:
        evaluations = [one.evaluation for one in chosen]
        weights = fit_weights(*scores_of(evaluations))
        heavy = [one for one, weight in zip(chosen, weights, strict=True) if weight >= LEAST_WEIGHT]
        if len(heavy) == len(chosen):
            loss = ensemble.weighed(evaluations, weights, best.evaluation.estimate.metric).nll
            if loss <= best.log_loss - WORTH:
                return chosen, weights, loss
            break
        chosen = heavy
    return [best], [1.0], None


def _title(result: Result) -> str:
    return f"{result.prepared.method.spec.name} on {result.prepared.base.name}"
