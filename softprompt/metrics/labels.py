"""Metrics of labels: one right label a row, one predicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from .measures import Measured, percentile, wilson


def accuracy(gold: Sequence[str], predicted: Sequence[str]) -> Measured:
    """The share of rows whose label is right."""
    hits = sum(g == p for g, p in zip(gold, predicted, strict=True))
    return Measured(hits / len(gold), wilson(hits, len(gold)))


def macro_f1(gold: Sequence[str], predicted: Sequence[str]) -> Measured:
    """The mean over labels, those of `gold` and of `predicted`, of each one's F1."""
    from sklearn.metrics import f1_score  # takes a second to import

    def value(a: np.ndarray, b: np.ndarray, labels: int) -> float:
        # a rare class may be absent from a resample altogether: it then has no F1, rather than one of 0
        return float(f1_score(a, b, labels=range(labels), average="macro", zero_division=np.nan))

    return _resampled(value, gold, predicted)


def mcc(gold: Sequence[str], predicted: Sequence[str]) -> Measured:
    """Matthews correlation of any number of labels (Gorodkin 2004), from -1 to 1."""
    from sklearn.metrics import matthews_corrcoef

    return _resampled(lambda a, b, _: float(matthews_corrcoef(a, b)), gold, predicted)


def _resampled(
    value: Callable[[np.ndarray, np.ndarray, int], float], gold: Sequence[str], predicted: Sequence[str]
) -> Measured:
    """A value of places [n] in the list of labels, with its bootstrap interval."""
    labels = sorted(set(gold) | set(predicted))
    places = {label: place for place, label in enumerate(labels)}
    pairs = np.array([places[x] for x in gold]), np.array([places[x] for x in predicted])
    point = value(*pairs, len(labels))
    return Measured(point, percentile(point, pairs, lambda a, b: value(a, b, len(labels)), vectorized=False))


def accuracy_of_majority(gold: Sequence[str]) -> float:
    """Accuracy of who always answers the most frequent label: its share p."""
    return max(Counter(gold).values()) / len(gold)


def macro_f1_of_majority(gold: Sequence[str]) -> float:
    """Macro-F1 of who always answers the most frequent label: its F1 2p / (1 + p), the others' being 0, over all labels."""
    share = accuracy_of_majority(gold)
    return 2 * share / (1 + share) / len(set(gold))


def mcc_of_majority(gold: Sequence[str]) -> float:
    """MCC of who always answers the same: 0."""
    return 0.0
