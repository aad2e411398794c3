"""Means and differences with intervals that cover training seeds and test rows.

What is computed and why, with sources and calibration: docs/statistics.md. Scores are matrices [k seeds, n rows], crossed:
every seed is tested on the same rows.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import stats

from softprompt.benchmarks.compare.results import Tested
from softprompt.config import suggest
from softprompt.errors import ConfigError, DataError, MissingExtraError
from softprompt.metrics import row_scores
from softprompt.metrics.measures import Interval, percentile, wilson
from softprompt.metrics.variance import ALPHA, in_pairs, variance_of, variance_of_difference

FEW = 25  # discordant rows below which McNemar's test is exact, the usual rule
Verdict = Literal["better", "worse", "no worse", "unclear"]


@dataclass(frozen=True)
class Mean:
    """A metric's mean over seeds.

    Attributes:
        interval: 95 %, over seeds and rows; of one seed over rows only.
        error: standard error.
        df: Satterthwaite's degrees of freedom, for information.
        seeds, rows: how many.
    """

    value: float
    interval: Interval
    error: float
    df: float
    seeds: int
    rows: int


@dataclass(frozen=True)
class Comparison:
    """One contender against another on the same rows.

    Attributes:
        difference: one minus other, on the metric's scale, as are `interval`, `error`, `rows_interval` and `smallest`.
        interval, p: 95 %, two-sided, over seeds and rows; over rows only if both have one seed.
        error, df: standard error, and Satterthwaite's degrees of freedom, for information.
        p_holm: p adjusted for all comparisons of the table (Holm 1979).
        rows_interval, p_permutation: over rows only, seeds as they are: paired bootstrap; sign flips of rows' mean differences.
        p_mcnemar: over rows only, of the first seed of each; None unless scores are 0 or 1.
        smallest: the difference that would be significant in 4 of 5 cases, with so many seeds and rows, at the first
            and strictest step of Holm's method.
        seeds: of one, of other.
        of: how many comparisons `p_holm` is adjusted for.
        words: for people, in points (hundredths of the scale).
    """

    one: str
    other: str
    difference: float
    interval: Interval
    error: float
    df: float
    p: float
    p_holm: float
    rows_interval: Interval
    p_mcnemar: float | None
    p_permutation: float
    smallest: float
    verdict: Verdict
    words: str
    seeds: tuple[int, int]
    rows: int
    of: int = 1


def scores_of(tested: Tested) -> np.ndarray:
    """`row_scores` of each seed [seeds, n].

    Raises:
        DataError: a record does not hold what was answered.
        ConfigError: the metric cannot be computed row by row.
    """
    for record, found in zip(tested.records, tested.measured, strict=True):
        if found.predicted is None:
            raise DataError(
                f"{record.id}: holds no answers of {tested.test}; delete the record and run the suite again"
            )
    return np.stack([row_scores(tested.metric, tested.gold, answers) for answers in tested.predicted])


def mean_over(scores: np.ndarray, limits: Interval | None = None) -> Mean:
    """Mean over seeds with a 95 % interval over seeds and rows.

    Scores of 0 and 1 get Wilson's interval (1927), with the number of rows that would give this spread (Korn & Graubard
    1998; Dean & Pagano 2015). It stays on the scale, and is no point where all rows are right. One seed gives that of
    `estimate`.

    Args:
        scores: [k, n].
        limits: the worst and best value of the metric, (0, 1) if not given. The interval is cut to them only if given.

    Raises:
        DataError: fewer than two rows, or a score that is not finite.
    """
    scores = _checked("scores", scores)
    seeds, rows = scores.shape
    bottom, top = limits or (0.0, 1.0)
    span, value = top - bottom, float(scores.mean())
    variance = variance_of(scores, span)
    half = float(variance.quantile(1 - ALPHA / 2))
    low, high = value - half, value + half
    if _binary(scores, bottom, top):
        low, high = (bottom + span * edge for edge in _share_interval((scores - bottom) / span, half / span))
    if limits:
        low, high = max(low, bottom), min(high, top)
    return Mean(value, (low, high), float(variance.error), float(variance.df), seeds, rows)


def _share_interval(hits: np.ndarray, half: float) -> Interval:
    """Wilson's interval of a share, hits [k, n] being 0 or 1, that has this half-width on a normal scale."""
    share, (seeds, rows) = float(hits.mean()), hits.shape
    if seeds == 1 or share in (0.0, 1.0):
        return wilson(round(share * rows), rows)
    z = float(stats.norm.ppf(1 - ALPHA / 2))
    count = share * (1 - share) * (z / half) ** 2  # rows of which a share would have this half-width
    low, high = _statsmodels("proportion").proportion_confint(share * count, count, ALPHA, method="wilson")
    return float(low), float(high)


def compare(
    one: str,
    a: np.ndarray,
    other: str,
    b: np.ndarray,
    margin: float,
    scale: float,
    *,
    resamples: int = 9999,
    of: int = 1,
) -> Comparison:
    """One contender's scores minus another's, on the same rows.

    Where both have the same number of seeds, they are paired by position, as equal seeds draw the same training rows. A
    single run (a prompt that is not trained) is compared with every seed of the other. With other numbers of seeds the
    rows are paired, and each side's seeds add their own variance.

    Args:
        a, b: scores [k, n] and [k2, n].
        margin: a share of the scale, 0.02 for 2 points: being worse by less does not matter.
        scale: points to one unit of the scores: 100 of metrics from 0 to 1, 1 of metrics from 0 to 100.
        resamples: of the permutation test.
        of: how many comparisons this is one of; `smallest` allows for it, p does not (`compare_all` adjusts that).

    Raises:
        DataError: different rows, fewer than two, or a score that is not finite.
        MissingExtraError: statsmodels is not installed.
    """
    a, b = _checked(one, a), _checked(other, b)
    if a.shape[1] != b.shape[1]:
        raise DataError(
            f"{one} and {other} were tested on {a.shape[1]} and {b.shape[1]} rows: test them on the same ones"
        )
    by_row = a.mean(axis=0) - b.mean(axis=0)
    difference, variance = float(by_row.mean()), variance_of_difference(a, b, 100 / scale)
    half = float(variance.quantile(1 - ALPHA / 2))
    p = variance.p(difference)
    permuted = stats.permutation_test(
        (by_row,), np.mean, permutation_type="samples", n_resamples=resamples, batch=256, rng=0, vectorized=True
    )
    found = Comparison(
        one=one,
        other=other,
        difference=difference,
        interval=(difference - half, difference + half),
        error=float(variance.error),
        df=float(variance.df),
        p=p,
        p_holm=p,
        rows_interval=percentile(difference, (by_row,), np.mean) or (-100 / scale, 100 / scale),
        p_mcnemar=mcnemar(a[0], b[0]) if _binary(a) and _binary(b) else None,
        p_permutation=float(permuted.pvalue),
        smallest=float(variance.detectable(ALPHA / of)),
        verdict="unclear",  # it and its words follow
        words="",
        seeds=(len(a), len(b)),
        rows=a.shape[1],
        of=of,
    )
    return _judged(found, margin, scale)


def compare_all(
    scores: Mapping[str, np.ndarray],
    reference: str,
    margin: float,
    scale: float,
    seeds: Mapping[str, Sequence[int]] | None = None,
) -> list[Comparison]:
    """Each contender against the reference, p adjusted for all of them together (Holm 1979).

    Args:
        scores: [k, n] of each contender by name, the same rows.
        margin, scale: see `compare`.
        seeds: [k] of each contender; those that two have both are compared (default: 0 to k − 1).

    Raises:
        ConfigError: no contender has the reference's name.
        DataError, MissingExtraError: see `compare`.
    """
    if reference not in scores:
        raise ConfigError(f"the reference {reference!r} is no contender{suggest(reference, list(scores))}")
    of = {name: range(len(own)) for name, own in scores.items()} if seeds is None else seeds
    found = []
    for name, own in scores.items():
        if name != reference:
            a, b = in_pairs(own, of[name], scores[reference], of[reference])
            found.append(compare(name, a, reference, b, margin, scale, of=len(scores) - 1))
    if not found:
        return []
    adjusted = _statsmodels("multitest").multipletests([one.p for one in found], method="holm")[1]
    return [_judged(replace(one, p_holm=float(p)), margin, scale) for one, p in zip(found, adjusted, strict=True)]


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """p of McNemar's test (1947) of two runs, scores [n] of 0 or 1: over rows only. Exact if fewer than 25 rows differ."""
    table = [[np.sum((a == x) & (b == y)) for y in (1, 0)] for x in (1, 0)]
    few = table[0][1] + table[1][0] < FEW
    return float(_statsmodels("contingency_tables").mcnemar(table, exact=bool(few), correction=False).pvalue)


def verdict_of(difference: float, low: float, p: float, margin: float) -> Verdict:
    """What may be said; `low` is the interval's lower bound and `margin` on the scores' scale."""
    if p < ALPHA:
        return "better" if difference > 0 else "worse"
    return "no worse" if low > -margin else "unclear"


def _judged(found: Comparison, margin: float, scale: float) -> Comparison:
    verdict = verdict_of(found.difference, found.interval[0], found.p_holm, margin * 100 / scale)
    return replace(found, verdict=verdict, words=_words(replace(found, verdict=verdict), margin * 100, scale))


def _words(found: Comparison, margin: float, scale: float) -> str:
    """A sentence for people; margin in points."""
    low, high = (bound * scale for bound in found.interval)
    numbers = f"{_points(found.difference * scale)} [{_points(low)}, {_points(high)}]"
    points = f"{margin:g} point{'' if margin == 1 else 's'}"
    small = {"better": high < margin, "worse": low > -margin}.get(found.verdict, False)
    words = {
        "better": f"better than {found.other}",
        "worse": f"worse than {found.other}",
        "no worse": f"no worse than {found.other} by more than {points}",
        "unclear": "cannot tell",
    }[found.verdict]
    words = f"{words}{f', but by less than {points}' if small else ''}"
    if found.verdict == "unclear":
        of = "these rows" if found.seeds == (1, 1) else "these rows and seeds"
        least = found.smallest * scale
        which = f"only differences from {least:.1f} points on" if least < 100 else "no difference, however large,"
        words = f"{words}: {numbers}; with {of} {which} would be found in 4 of 5 cases"
    else:
        words = f"{words} ({numbers})"
    if found.p < ALPHA <= found.p_holm:
        words += f"; p = {found.p:.2g} by itself, {found.p_holm:.2g} as one of {found.of} comparisons"
    return words + ("; over rows only, as each ran once" if found.seeds == (1, 1) else "")


def _points(value: float) -> str:
    """One decimal with a minus sign, −0.0 as 0.0."""
    return f"{round(value, 1) + 0.0:.1f}".replace("-", "−")


def _binary(scores: np.ndarray, bottom: float = 0.0, top: float = 1.0) -> bool:
    return bool(np.isin(scores, (bottom, top)).all())


def _checked(name: str, scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2 or not len(scores) or scores.shape[1] < 2:
        raise DataError(f"{name}: scores of shape {scores.shape}; at least one seed and two test rows are needed")
    if not np.isfinite(scores).all():
        raise DataError(f"{name}: {int((~np.isfinite(scores)).sum())} of its scores are no numbers")
    return scores


def _statsmodels(module: str) -> Any:
    """A module of statsmodels.stats; the import takes a second."""
    try:
        return importlib.import_module(f"statsmodels.stats.{module}")
    except ImportError as error:
        raise MissingExtraError("bench compare needs statsmodels: pip install 'softprompt[bench]'") from error
