"""Metrics with 95 % intervals. Never a number without one."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

_RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A metric over rows: its value and the bounds of its 95 % interval."""

    metric: str
    value: float
    interval: tuple[float, float]
    rows: int

    @property
    def error(self) -> float:
        """About one standard error: a quarter of the interval, which is two of them to each side."""
        return (self.interval[1] - self.interval[0]) / 4

    def as_dict(self) -> dict[str, Any]:
        """As written to JSON: {"metric", "value", "interval", "rows"}."""
        return {"metric": self.metric, "value": self.value, "interval": list(self.interval), "rows": self.rows}

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} [{low:.3f}, {high:.3f}]"


def majority(metric: str, gold: Sequence[str]) -> float:
    """What the metric gives to whoever always answers the most frequent label.

    Accuracy: its share p. Macro-F1: its F1 2p / (1 + p), the other labels' being 0, over all labels. MCC: 0.

    Args:
        gold: right labels, at least one.
    """
    share = max(Counter(gold).values()) / len(gold)
    if metric == "accuracy":
        return share
    return 2 * share / (1 + share) / len(set(gold)) if metric == "macro_f1" else 0.0


def estimate(metric: str, gold: Sequence[str], predicted: Sequence[str]) -> Estimate:
    """Accuracy (Wilson 1927 score interval), macro-F1 or MCC (percentile bootstrap over rows, seeded).

    Args:
        gold, predicted: labels of the same rows, at least one.
    """
    if metric == "accuracy":
        hits = sum(g == p for g, p in zip(gold, predicted, strict=True))
        bounds = stats.binomtest(hits, len(gold)).proportion_ci(0.95, method="wilson")
        return Estimate(metric, hits / len(gold), (float(bounds.low), float(bounds.high)), len(gold))
    from sklearn.metrics import f1_score, matthews_corrcoef  # takes a second to import

    labels = sorted(set(gold) | set(predicted))
    pairs = np.array([labels.index(x) for x in gold]), np.array([labels.index(x) for x in predicted])

    def value(a: np.ndarray, b: np.ndarray) -> float:
        if metric == "macro_f1":
            # a rare class may be absent from a resample altogether: it then has no F1, rather than one of 0
            return float(f1_score(a, b, labels=range(len(labels)), average="macro", zero_division=np.nan))
        return float(matthews_corrcoef(a, b))

    point = value(*pairs)
    if len(gold) < 2:
        return Estimate(metric, point, (-1.0 if metric == "mcc" else 0.0, 1.0), len(gold))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all rows right: every resample is equal, and the interval a point
        bounds = stats.bootstrap(
            pairs, value, paired=True, vectorized=False, n_resamples=_RESAMPLES, method="percentile", rng=0
        ).confidence_interval
    low, high = (point if np.isnan(edge) else float(edge) for edge in (bounds.low, bounds.high))
    return Estimate(metric, point, (low, high), len(gold))
