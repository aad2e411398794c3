"""Metrics of labels: one right label a row, one predicted."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from .measures import Measured, jackknife, percentile, wilson

# of places [m] in the list of labels, right and predicted, its length, and how often each pair stands (None: once)
Value = Callable[[np.ndarray, np.ndarray, int, "np.ndarray | None"], float]


def accuracy(gold: Sequence[str], predicted: Sequence[str]) -> Measured:
    """The share of rows whose label is right."""
    hits = int(accuracy_rows(gold, predicted).sum())
    return Measured(hits / len(gold), wilson(hits, len(gold)))


def accuracy_rows(gold: Sequence[str], predicted: Sequence[str]) -> np.ndarray:
    """1 of each row whose label is right, else 0 [n]."""
    return np.array([float(g == p) for g, p in zip(gold, predicted, strict=True)])


def macro_f1(gold: Sequence[str], predicted: Sequence[str]) -> Measured:
    """The mean over labels, those of `gold` and of `predicted`, of each one's F1."""
    return _resampled(_macro_f1, gold, predicted)


def macro_f1_rows(gold: Sequence[str], predicted: Sequence[str]) -> np.ndarray:
    """Jackknife pseudo-values of `macro_f1` [n]."""
    return _left_out(_macro_f1, gold, predicted)


def mcc(gold: Sequence[str], predicted: Sequence[str]) -> Measured:
    """Matthews correlation of any number of labels (Gorodkin 2004), from -1 to 1."""
    return _resampled(_mcc, gold, predicted)


def mcc_rows(gold: Sequence[str], predicted: Sequence[str]) -> np.ndarray:
    """Jackknife pseudo-values of `mcc` [n]."""
    return _left_out(_mcc, gold, predicted)


def _macro_f1(gold: np.ndarray, predicted: np.ndarray, labels: int, times: np.ndarray | None = None) -> float:
    from sklearn.metrics import f1_score  # takes a second to import

    # a rare class may be absent from a resample altogether: it then has no F1, rather than one of 0
    return float(
        f1_score(gold, predicted, labels=range(labels), average="macro", zero_division=np.nan, sample_weight=times)
    )


def _mcc(gold: np.ndarray, predicted: np.ndarray, labels: int, times: np.ndarray | None = None) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(gold, predicted, sample_weight=times))


def _resampled(value: Value, gold: Sequence[str], predicted: Sequence[str]) -> Measured:
    """A value with its bootstrap interval."""
    pairs, labels = _places(gold, predicted)
    point = value(*pairs, labels, None)
    return Measured(point, percentile(point, pairs, lambda a, b: value(a, b, labels, None), vectorized=False))


def _left_out(value: Value, gold: Sequence[str], predicted: Sequence[str]) -> np.ndarray:
    """Jackknife pseudo-values [n]. Rows of the same pair (right, predicted) have the same, so each pair is left out once."""
    pairs, labels = _places(gold, predicted)
    kinds, kind, times = np.unique(np.stack(pairs), axis=1, return_inverse=True, return_counts=True)

    def of(counts: np.ndarray) -> float:
        there = counts > 0
        return value(kinds[0][there], kinds[1][there], labels, counts[there])

    if len(gold) < 2:
        return jackknife(of(times), np.zeros(len(gold)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a single label may be left
        without = np.array([of(times - one) for one in np.eye(len(times), dtype=int)])
    return jackknife(of(times), without[kind.reshape(-1)])


def _places(gold: Sequence[str], predicted: Sequence[str]) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """(right, predicted) as places [n] in the list of labels, and its length."""
    labels = sorted(set(gold) | set(predicted))
    places = {label: place for place, label in enumerate(labels)}
    return (np.array([places[x] for x in gold]), np.array([places[x] for x in predicted])), len(labels)


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
