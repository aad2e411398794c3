"""The variance of a mean over training seeds and test rows, and quantiles of its error that are never too narrow.

Scores are matrices [..., k seeds, n rows], crossed. The two-way random-effects model (Brennan 2001, generalizability theory):
score = mean + seed + row + rest, the rest being what a seed does to a row, and noise.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats

ALPHA = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Variance:
    """Variance of a mean as a sum of independent parts, each estimated with its degrees of freedom.

    Attributes:
        parts: (variance, degrees of freedom); variances are numbers, or arrays of one shape for many means at once.
    """

    parts: tuple[tuple[Any, int], ...]

    @property
    def error(self) -> Any:
        """Standard error."""
        return np.sqrt(sum(variance for variance, _ in self.parts))

    @property
    def df(self) -> Any:
        """Degrees of freedom of the sum (Satterthwaite 1946). For information: `quantile` does not rest on them."""
        return self.error**4 / sum(variance**2 / df for variance, df in self.parts)

    def quantile(self, chance: float) -> Any:
        """√Σ t²·variance, t being the `chance` quantile (above 1/2) of Student's t with that part's degrees of freedom.

        A normal mean is off by more than quantile(1 − α/2) with a probability of at most α, whatever the true variances are
        (Banerjee 1960). Satterthwaite's approximation makes no such promise, and breaks it with two or three seeds.
        """
        return np.sqrt(sum(stats.t.ppf(chance, df) ** 2 * variance for variance, df in self.parts))

    def detectable(self, alpha: float = ALPHA) -> Any:
        """The difference that a test at level alpha finds with a power of 80 %: √Σ c²·variance, c from a t test (`_needed`).

        A variance with few degrees of freedom is mostly estimated too low: with two, in 63 of 100 cases. So each is
        divided by the median of χ²/df first, and the result is as often too high as too low.
        """
        typical = ((variance * df / stats.chi2.median(df), df) for variance, df in self.parts)
        return np.sqrt(sum(_needed(df, alpha) ** 2 * variance for variance, df in typical))

    def p(self, difference: float) -> float:
        """Two-sided p: the α at which |difference| = quantile(1 − α/2). Of numbers, not arrays."""
        size = abs(difference)
        if size == 0:
            return 1.0

        def over(log_p: float) -> float:  # isf keeps the digits of a tiny p that 1 − p/2 would lose
            half = math.exp(log_p) / 2
            return math.hypot(*(stats.t.isf(half, df) * math.sqrt(variance) for variance, df in self.parts)) - size

        lowest = -500.0  # of much less scipy's isf is not finite
        return 0.0 if over(lowest) < 0 else math.exp(optimize.brentq(over, lowest, 0.0))


@functools.cache
def _needed(df: int, alpha: float) -> float:
    """Standard errors that a t test at level alpha finds with a power of 80 % (noncentral t); about t.975 + t.80 at 5 %."""
    critical = stats.t.ppf(1 - alpha / 2, df)
    return float(optimize.brentq(lambda errors: stats.nct.sf(critical, df, errors) - POWER, 0, 10 * critical))


def variance_of(scores: np.ndarray, span: float = 1.0) -> Variance:
    """Variance of the mean of scores [..., k, n]: what rows alone give, plus what seeds alone give.

    Rows: the variance of the n rows' means over n; seeds: that of the k seeds' means over k (none of one seed). Both hold the
    rest's share, so the sum is above the mean's variance by that share, never below. To rows' part comes what one more row that
    differs by the whole scale would add (Agresti & Min 2005), so that equal rows do not make it 0.

    Args:
        span: width of the metric's scale.
    """
    rows = scores.shape[-1]
    by_row = scores.mean(axis=-2).var(axis=-1, ddof=1) / rows + (span / rows) ** 2
    return Variance(((by_row, rows - 1), *_of_seeds(scores)))


def variance_of_difference(a: np.ndarray, b: np.ndarray, span: float = 1.0) -> Variance:
    """Variance of the mean of a − b, scores [..., k, n] and [..., k2, n] of the same rows.

    Of equal numbers of seeds, or one on a side, the differences' (seeds are paired by position). Of others the rows' part is
    that of differences of means over seeds, and each side's seeds have a part of their own.
    """
    if a.shape[-2] == b.shape[-2] or 1 in (a.shape[-2], b.shape[-2]):
        return variance_of(a - b, span)
    by_row = a.mean(axis=-2, keepdims=True) - b.mean(axis=-2, keepdims=True)
    return Variance((*variance_of(by_row, span).parts, *_of_seeds(a), *_of_seeds(b)))


def in_pairs(
    a: np.ndarray, a_seeds: Sequence[int], b: np.ndarray, b_seeds: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Scores [k, n] and [k2, n] of the seeds that both have, in one order, so that places are pairs.

    As they are where one side has one seed, or where fewer than two are common: then there is nothing to pair.
    """
    common = [seed for seed in a_seeds if seed in b_seeds]
    if 1 in (len(a_seeds), len(b_seeds)) or len(common) < 2:
        return a, b
    return a[[list(a_seeds).index(seed) for seed in common]], b[[list(b_seeds).index(seed) for seed in common]]


def _of_seeds(scores: np.ndarray) -> tuple[tuple[Any, int], ...]:
    seeds = scores.shape[-2]
    return ((scores.mean(axis=-1).var(axis=-1, ddof=1) / seeds, seeds - 1),) if seeds > 1 else ()
