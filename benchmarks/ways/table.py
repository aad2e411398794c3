"""The records of all ways as one table, best first, and the learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from softprompt.benchmarks.compare.record import Place
from softprompt.benchmarks.compare.results import Results, Tested
from softprompt.benchmarks.compare.statistics import mean_over, scores_of
from softprompt.benchmarks.compare.suite import label_of
from softprompt.benchmarks.ways.suite import Way
from softprompt.metrics import metric_of
from softprompt.metrics.measures import Interval
from softprompt.metrics.variance import ALPHA, variance_of_difference
from softprompt.runfile import BaseSpec


@dataclass(frozen=True)
class Difference:
    """Of two ways, or of one with more and with fewer labels, on the rows that both were tested on; paired.

    Attributes:
        interval: 95 %, over rows.
    """

    value: float
    interval: Interval


@dataclass(frozen=True)
class Line:
    """A way's line.

    Attributes:
        labels: that it learned from in each fold; None: it learned from none.
        folds: that have ended.
        loss: mean −log-score of the right label; None where a way gives no probabilities.
        train_seconds: of the longest fold, as the first one encodes what the others use again.
        predict_seconds: of 1,000 rows, likewise.
        stored: bytes of what is saved.
        to_best: this one minus the best one; None of the best one itself.
    """

    way: Way
    tested: Tested
    labels: int | None
    folds: int
    value: float
    interval: Interval
    loss: float | None
    train_seconds: float
    predict_seconds: float
    stored: float | None
    to_best: Difference | None = None

    @property
    def title(self) -> str:
        """In plain words."""
        return self.way.title


@dataclass(frozen=True)
class Curve:
    """How a way does with fewer labels.

    Attributes:
        points: fewest labels first; of `Line`s with the same rows.
        gain: the last point minus the one before.
    """

    points: list[Line]
    gain: Difference

    @property
    def title(self) -> str:
        """Of the way."""
        return self.points[0].title


def lines_of(results: Results, ways: Sequence[Way], labels: int, folds: int) -> tuple[list[Line], list[Curve]]:
    """The table and the learning curves.

    Args:
        labels: that a way has at most.
        folds: in all. Lines with fewer stand behind those with all of them.
    """
    lines = [_line(way, tested) for tested in results.tested() for way in ways if runs_as(way, tested.place)]
    whole = [line for line in lines if line.labels in (None, labels)]
    whole.sort(key=lambda line: (line.folds < folds, -line.value, ways.index(line.way)))
    whole = [replace(line, predict_seconds=_slowest_alike(line, whole)) for line in whole]
    ranked = [whole[0], *(_against(line, whole[0]) for line in whole[1:])] if whole else []
    curves = []
    for way in ways:
        points = [line for line in lines if way.curve and line.way == way and line.folds == folds and line.labels]
        points.sort(key=lambda line: line.labels or 0)
        if len(points) > 1:
            curves.append(Curve(points, difference(points[-1].tested, points[-2].tested)))
    return ranked, curves


def runs_as(way: Way, place: Place) -> bool:
    """Whether a run stands for a way."""
    on = way.base is None or label_of(BaseSpec(name=way.base)) == place.base
    return on and way.contender == place.contender


def _line(way: Way, tested: Tested) -> Line:
    metric, records = metric_of(tested.metric), tested.records
    mean = mean_over(scores_of(tested), (metric.bottom, metric.top))
    losses = [found.nll for found in tested.measured if found.nll is not None]
    rows = [found.rows for found in tested.measured]
    sizes = [record.artifact_bytes for record in records if record.artifact_bytes is not None]
    return Line(
        way,
        tested,
        tested.place.size,
        len(records),
        mean.value,
        mean.interval,
        float(np.average(losses, weights=rows)) if len(losses) == len(rows) else None,
        max(one.seconds.encode + one.seconds.train + one.seconds.look for one in records),
        max(1000 * one.seconds.test / count for one, count in zip(records, rows, strict=True)),
        float(np.mean(sizes)) if sizes else None,
    )


def _slowest_alike(line: Line, lines: Sequence[Line]) -> float:
    """Of the ways that run the same tokens through the same base, as all but the first take its states."""

    def runs(one: Line) -> tuple[str | None, float | None]:
        return one.way.base, one.tested.records[0].tokens.request

    if line.way.base is None:
        return line.predict_seconds
    return max(one.predict_seconds for one in lines if runs(one) == runs(line))


def _against(line: Line, best: Line) -> Line:
    return replace(line, to_best=difference(line.tested, best.tested))


def difference(one: Tested, other: Tested) -> Difference:
    """One minus other."""
    a, b = (dict(zip(side.where, scores_of(side)[0].tolist(), strict=True)) for side in (one, other))
    both = [where for where in a if where in b]
    first, second = (np.array([[side[where] for where in both]]) for side in (a, b))
    metric = metric_of(one.metric)
    value = float((first - second).mean())
    half = float(variance_of_difference(first, second, metric.top - metric.bottom).quantile(1 - ALPHA / 2))
    return Difference(value, (value - half, value + half))
