"""Which of what was tried answers: one alone, or several together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from .. import ensemble
from ..data import Row
from ..ensemble import fit_weights, scores_of
from ..errors import DataError
from ..tasks import Task
from ..training import Result
from .contenders import Contender
from .trying import Trainer, Tried, cross_validate, folds_of, mean_loss

FOLDS = 2
"""All together cost a learned prompt about as much as one training on all rows, for one fold less."""
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
class Comparison:
    """What was tried on rows, and what is to answer.

    Attributes:
        members: what is to answer, each with its weight; one answers alone.
        tried: all that was tried, best log loss first; empty where there are too few rows.
    """

    members: list[tuple[float, Contender]]
    tried: list[Tried]

    @property
    def says(self) -> str:
        """The choice in words: `accuracy on 128 rows from outside: probe on minilm 0.98, …; chosen: probe on minilm`."""
        chosen = " and ".join(contender.title for _, contender in self.members)
        if not self.tried:
            return f"{chosen}, as there are too few rows to compare"
        estimates = [(one.contender.title, one.evaluation.estimate) for one in self.tried]
        compared = ", ".join(f"{title} {estimate.value:.3f}" for title, estimate in estimates)
        first = estimates[0][1]
        together = " together" if len(self.members) > 1 else ""
        return f"{first.metric} on {first.rows} rows from outside: {compared}; chosen: {chosen}{together}"


def compare(
    trainer: Trainer, contenders: Sequence[Contender], rows: Sequence[Row], dev: Sequence[Row] = ()
) -> Comparison:
    """Try ways on folds of the rows, or on dev rows where there are some, and choose.

    Args:
        contenders: the cheap ones first; where one of them is `PERFECT` the others are not tried.
        dev: nothing is learned from them.

    Raises:
        SoftpromptError: see `softprompt.train`; all rows have one label.
    """
    folds = _folds(trainer.task, rows, dev, trainer.seed)
    if not folds:  # too few rows to hold any back
        return Comparison([(1.0, contenders[-1])], [])
    tried: list[Tried] = []
    for contender in contenders:
        if not contender.cheap and any(one.evaluation.estimate.value >= PERFECT for one in tried):
            continue
        tried.append(cross_validate(trainer, contender, [*rows, *dev], folds))
    chosen, weights, _ = weighed(tried)
    members = [(weight, one.contender) for weight, one in zip(weights, chosen, strict=True)]
    return Comparison(members, sorted(tried, key=lambda one: one.log_loss))


def choose(
    trainer: Trainer, contenders: Sequence[Contender], rows: Sequence[Row], dev: Sequence[Row] = ()
) -> tuple[Comparison, list[tuple[float, Result]]]:
    """Compare ways (see `compare`), and learn what was chosen from all rows that are not held out for good.

    Returns:
        the comparison, and what was learned with its weight.
    """
    found = compare(trainer, contenders, rows, dev)
    learned = {one.contender.title: one.result for one in found.tried}
    members = [
        (weight, learned.get(contender.title) or trainer.train(contender, [*rows, *dev]))
        for weight, contender in found.members
    ]
    return found, members


def _folds(task: Task, rows: Sequence[Row], dev: Sequence[Row], seed: int) -> list[list[int]]:
    """Indices of the rows that are held out, of all rows and dev rows; none where a training part would have one label.

    Raises:
        DataError: all rows have one label.
    """
    labels = list(map(task.label, rows))
    if len(set(labels)) < 2:
        told = f"all {len(rows)} training rows have the label {labels[0]!r}" if labels else "there are no training rows"
        raise DataError(f"{told}, so there is nothing to classify; give rows of at least two labels")
    if dev:
        return [list(range(len(rows), len(rows) + len(dev)))]
    if len(rows) >= FEW:
        folds = folds_of(task, rows, ENOUGH_FOLDS, seed)[:1]
    else:
        second = sorted(Counter(labels).values())[-2]
        folds = folds_of(task, rows, min(FOLDS, second), seed) if second > 1 else []
    return folds if all(fold and _several_outside(labels, set(fold)) for fold in folds) else []


def _several_outside(labels: Sequence[Hashable], fold: set[int]) -> bool:
    """Whether rows outside a fold have several labels; copies of a text stay together, so it may hold all of one label."""
    return len({label for place, label in enumerate(labels) if place not in fold}) > 1


def weighed(tried: Sequence[Tried]) -> tuple[list[Tried], list[float], float | None]:
    """Which of them answer, with what weights, and their log loss together where it is not one alone.

    The one with the least log loss answers alone, unless together they gain `WORTH`.
    """
    best = min(tried, key=lambda one: one.log_loss)
    chosen = list(tried)
    while len(chosen) > 1:
        evaluations = [one.evaluation for one in chosen]
        weights = fit_weights(*scores_of(evaluations), best.counts)
        heavy = [one for one, weight in zip(chosen, weights, strict=True) if weight >= LEAST_WEIGHT]
        if len(heavy) == len(chosen):
            together = ensemble.weighed(evaluations, weights, best.evaluation.estimate.metric)
            loss = mean_loss(together, best.counts)
            if loss <= best.log_loss - WORTH:
                return chosen, weights, loss
            break
        chosen = heavy
    return [best], [1.0], None
