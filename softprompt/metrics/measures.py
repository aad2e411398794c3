"""Intervals of shares, means and sums over rows: what a metric's entry in the table is made of."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 1000
_ROOM = 4_000_000  # numbers of a batch of resamples: 32 MB, however many rows

Interval = tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """What a metric measures.

    Attributes:
        interval: 95 %, or None if there are too few rows for one: the true value may then be anywhere on the scale.
        signature: how it was computed, as sacrebleu says it; empty where the metric's name says all.
    """

    value: float
    interval: Interval | None
    signature: str = ""


Measure = Callable[[Sequence[Any], Sequence[Any]], Measured]  # of (gold, predicted), the same rows, at least one
Rows = Callable[
    [Sequence[Any], Sequence[Any]], np.ndarray
]  # of the same: what each row adds [n]; their mean is the value
RowScore = Callable[[Sequence[str], str], float]  # of one row: (reference texts, predicted text) -> score


def wilson(hits: int, rows: int) -> Interval:
    """95 % score interval of a share (Wilson 1927)."""
    bounds = stats.binomtest(hits, rows).proportion_ci(0.95, method="wilson")
    return float(bounds.low), float(bounds.high)


def percentile(
    point: float,
    data: tuple[np.ndarray, ...],
    statistic: Callable[..., Any],
    *,
    vectorized: bool = True,
    width: int = 1,
) -> Interval | None:
    """95 % percentile bootstrap over rows (Efron 1979), seeded: the same rows give the same interval.

    Args:
        point: the statistic of all rows. The interval is widened to hold it, because a resample lacks a third of the
            rows. A statistic that is not a mean may therefore lie outside the interval of its resamples.
        data: arrays of the same n rows [n], resampled together.
        statistic: of such arrays; if vectorized of arrays [batch, n] and `axis`.
        width: numbers that the vectorized statistic holds for each row.

    Returns:
        None of fewer than two rows.
    """
    rows = len(data[0])
    if rows < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all rows right: every resample is equal, and the interval a point
        bounds = stats.bootstrap(
            data,
            statistic,
            paired=True,
            vectorized=vectorized,
            n_resamples=RESAMPLES,
            batch=max(1, min(RESAMPLES, _ROOM // (rows * width))),
            method="percentile",
            rng=0,
        ).confidence_interval
    edges = (float(bounds.low), float(bounds.high))
    low, high = (point if math.isnan(edge) else edge for edge in edges)
    return min(low, point), max(high, point)


def share_of(hit: RowScore) -> tuple[Measure, Rows]:
    """A metric that is the share of rows of which `hit` is 1 rather than 0."""

    def rows(gold: Sequence[Sequence[str]], predicted: Sequence[str]) -> np.ndarray:
        return np.array([float(hit(texts, text) == 1) for texts, text in zip(gold, predicted, strict=True)])

    def measure(gold: Sequence[Sequence[str]], predicted: Sequence[str]) -> Measured:
        hits = int(rows(gold, predicted).sum())
        return Measured(hits / len(gold), wilson(hits, len(gold)))

    return measure, rows


def mean_of(score: RowScore) -> tuple[Measure, Rows]:
    """A metric that is the mean over rows of a score."""

    def rows(gold: Sequence[Sequence[str]], predicted: Sequence[str]) -> np.ndarray:
        return np.array([score(texts, text) for texts, text in zip(gold, predicted, strict=True)], dtype=float)

    def measure(gold: Sequence[Sequence[str]], predicted: Sequence[str]) -> Measured:
        values = rows(gold, predicted)
        point = math.fsum(values) / len(values)  # exact, so the order of rows does not matter
        return Measured(point, percentile(point, (values,), np.mean))

    return measure, rows


def jackknife(value: float, without: np.ndarray) -> np.ndarray:
    """What each row adds to a value that is no mean of rows: pseudo-values, shifted so that their mean is the value.

    Row i's is n·value − (n − 1)·without[i] (Tukey 1958; Efron & Stein 1981, §2). Their variance over n is the jackknife's
    estimate of the value's variance, and the differences of two systems' do the same for the difference. The shift takes out
    the jackknife's correction for bias: the value stays the one that is reported.

    Args:
        value: of all rows.
        without: the value of all rows but the i-th [n]; of one row it plays no part.
    """
    rows = len(without)
    if rows < 2:
        return np.full(rows, value)
    pseudo = rows * value - (rows - 1) * without
    return pseudo + (value - pseudo.mean())


def score_of_sums(point: float, counts: np.ndarray, score: Callable[[list[int]], float]) -> Interval | None:
    """Interval of a corpus metric: a function of sums over rows, not a mean of rows' scores (Koehn 2004).

    Args:
        point: the score of all rows.
        counts: sufficient statistics of each row [n, s].
        score: of their sums [s].
    """

    def statistic(index: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.apply_along_axis(lambda sums: score(sums.tolist()), -1, counts[index].sum(axis=-2))

    return percentile(point, (np.arange(len(counts)),), statistic, width=counts.shape[1])
