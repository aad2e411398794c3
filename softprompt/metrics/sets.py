"""Metrics of sets of labels: none, one or several right labels a row, and as many predicted.

A label that no row has and no row was given counts for nothing: it has no F1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from .labels import accuracy, accuracy_of_majority, accuracy_rows
from .measures import Measured, jackknife, score_of_sums

Labels = Sequence[str]


def micro_f1(gold: Sequence[Labels], predicted: Sequence[Labels]) -> Measured:
    """F1 over all pairs of a row and a label (0 if there are none at all)."""
    return _measured(_counts(gold, predicted), _micro)


def micro_f1_rows(gold: Sequence[Labels], predicted: Sequence[Labels]) -> np.ndarray:
    """Jackknife pseudo-values of `micro_f1` [n]."""
    return _left_out(_counts(gold, predicted), _micro)


def macro_f1(gold: Sequence[Labels], predicted: Sequence[Labels]) -> Measured:
    """The mean over labels, those of `gold` and of `predicted`, of each one's F1 (0 if there are none at all)."""
    return _measured(_counts(gold, predicted), _macro)


def macro_f1_rows(gold: Sequence[Labels], predicted: Sequence[Labels]) -> np.ndarray:
    """Jackknife pseudo-values of `macro_f1` [n]."""
    return _left_out(_counts(gold, predicted), _macro)


def subset_accuracy(gold: Sequence[Labels], predicted: Sequence[Labels]) -> Measured:
    """The share of rows whose labels are all right, and no other was given."""
    return accuracy(_as_one(gold), _as_one(predicted))


def subset_accuracy_rows(gold: Sequence[Labels], predicted: Sequence[Labels]) -> np.ndarray:
    """1 of each row whose labels are all right, else 0 [n]."""
    return accuracy_rows(_as_one(gold), _as_one(predicted))


def micro_f1_of_majority(gold: Sequence[Labels]) -> float:
    """The best micro-F1 of any set that is the same for all rows: it holds the most frequent labels."""
    often = Counter(label for labels in gold for label in set(labels))
    best = right = 0.0
    for size, (_, count) in enumerate(often.most_common(), 1):
        right += count
        best = max(best, 2 * right / (size * len(gold) + often.total()))
    return best


def macro_f1_of_majority(gold: Sequence[Labels]) -> float:
    """Macro-F1 of who gives every label to every row: of a label with share p, 2p / (1 + p)."""
    often = Counter(label for labels in gold for label in set(labels))
    shares = [count / len(gold) for count in often.values()]
    return sum(2 * share / (1 + share) for share in shares) / len(shares) if shares else 0.0


def subset_accuracy_of_majority(gold: Sequence[Labels]) -> float:
    """The share of the most frequent set."""
    return accuracy_of_majority(_as_one(gold))


def _as_one(rows: Sequence[Labels]) -> list[str]:
    """Each row's set as one text, the same for equal sets."""
    return [repr(sorted(set(labels))) for labels in rows]


def _counts(gold: Sequence[Labels], predicted: Sequence[Labels]) -> np.ndarray:
    """Of each row and label, whether it is right and given, given, and right [n, K · 3]."""
    labels = sorted({label for rows in (gold, predicted) for row in rows for label in row}) or [""]
    places = {label: place for place, label in enumerate(labels)}
    counts = np.zeros((len(gold), len(labels), 3), dtype=np.int64)
    for row, (right, given) in enumerate(zip(gold, predicted, strict=True)):
        for label in set(given):
            counts[row, places[label], 1] = 1
        for label in set(right):
            counts[row, places[label], 2] = 1
    counts[:, :, 0] = counts[:, :, 1] * counts[:, :, 2]
    return counts.reshape(len(gold), -1)


def _micro(sums: list[int]) -> float:
    """Of the sums of `_counts` over rows."""
    hits, given, right = np.reshape(sums, (-1, 3)).sum(axis=0)
    return float(2 * hits / (given + right)) if given + right else 0.0


def _macro(sums: list[int]) -> float:
    """Of the sums of `_counts` over rows."""
    hits, given, right = np.reshape(sums, (-1, 3)).T
    there = given + right > 0
    return float((2 * hits[there] / (given + right)[there]).mean()) if there.any() else 0.0


def _measured(counts: np.ndarray, value: Callable[[list[int]], float]) -> Measured:
    """A value of the sums of `_counts`, and what its interval is made of."""
    point = value(counts.sum(axis=0).tolist())
    return Measured(point, score_of_sums(point, counts, value))


def _left_out(counts: np.ndarray, value: Callable[[list[int]], float]) -> np.ndarray:
    """Jackknife pseudo-values [n] of a value of the sums of `_counts`."""
    sums = counts.sum(axis=0)
    return jackknife(value(sums.tolist()), np.array([value(left) for left in (sums - counts).tolist()]))
