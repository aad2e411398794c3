"""Answers by label: precision, recall and F1 of each, and which labels are taken for which others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics import Measured
from ..metrics.measures import percentile, wilson
from ..metrics.spans import spans_of

MOST_LABELS = 12
_CONFUSIONS = 10


@dataclass(frozen=True)
class LabelScore:
    """One label's rows, or spans.

    Attributes:
        right: so many have this label in truth.
        given: so many were given it.
        precision, recall, f1: None where nothing was given it, nothing has it, or neither.
        threshold: the probability from which on it is given, where each label is decided by itself.
    """

    label: str
    right: int
    given: int
    precision: Measured | None
    recall: Measured | None
    f1: Measured | None
    threshold: float | None = None


@dataclass(frozen=True)
class Confusion:
    """Which labels are taken for which.

    Attributes:
        counts: rows by right and given label [right, given], in the order of `labels`; None of more than 12 labels.
        largest: the most frequent mistakes: (right label, given label, rows).
    """

    labels: list[str]
    counts: list[list[int]] | None
    largest: list[tuple[str, str, int]]


def label_scores(labels: Sequence[str], gold: Sequence[str], given: Sequence[str]) -> list[LabelScore]:
    """Each label's scores over rows, with intervals after Wilson."""
    from sklearn.metrics import multilabel_confusion_matrix, precision_recall_fscore_support  # takes a second to import

    found = []
    # by number: numpy's texts lose a NUL at their end
    numbers = {label: number for number, label in enumerate(labels)}
    pairs = [numbers[label] for label in gold], [numbers[label] for label in given]
    counted = list(numbers.values())
    scores = precision_recall_fscore_support(*pairs, labels=counted, average=None, zero_division=0)
    by_label = zip(*(map(float, values) for values in scores[:3]), strict=True)
    matrices = multilabel_confusion_matrix(*pairs, labels=counted)
    for label, counts, (precision, recall, f1) in zip(labels, matrices, by_label, strict=True):
        hits, right, told = int(counts[1, 1]), int(counts[1].sum()), int(counts[:, 1].sum())
        found.append(
            LabelScore(
                label,
                right,
                told,
                Measured(precision, wilson(hits, told)) if told else None,
                Measured(recall, wilson(hits, right)) if right else None,
                Measured(f1, _f1_interval(counts)) if right or told else None,
            )
        )
    return found


def confusion(labels: Sequence[str], gold: Sequence[str], given: Sequence[str]) -> Confusion:
    """Which labels were given for which."""
    from sklearn.metrics import confusion_matrix

    pairs = Counter((right, told) for right, told in zip(gold, given, strict=True) if right != told)
    counts = None
    if len(labels) <= MOST_LABELS:
        numbers = {label: number for number, label in enumerate(labels)}  # as in `label_scores`
        counted = [numbers[label] for label in gold], [numbers[label] for label in given]
        counts = confusion_matrix(*counted, labels=list(numbers.values())).tolist()
    return Confusion(list(labels), counts, [(*pair, rows) for pair, rows in pairs.most_common(_CONFUSIONS)])


def set_scores(
    labels: Sequence[str], gold: Sequence[Sequence[str]], given: Sequence[Sequence[str]], thresholds: Sequence[float]
) -> list[LabelScore]:
    """Each label's scores over rows that may have several, with intervals after Wilson.

    Args:
        thresholds: of each label.
    """
    found = []
    for label, threshold in zip(labels, thresholds, strict=True):
        pairs = Counter((label in right, label in told) for right, told in zip(gold, given, strict=True))
        counts = np.array([[pairs[is_right, was_given] for was_given in (False, True)] for is_right in (False, True)])
        hits, right, told = int(counts[1, 1]), int(counts[1].sum()), int(counts[:, 1].sum())
        found.append(
            LabelScore(
                label,
                right,
                told,
                Measured(hits / told, wilson(hits, told)) if told else None,
                Measured(hits / right, wilson(hits, right)) if right else None,
                Measured(2 * hits / (right + told), _f1_interval(counts)) if right or told else None,
                threshold,
            )
        )
    return found


def span_scores(gold: Sequence[Sequence[str]], given: Sequence[Sequence[str]]) -> list[LabelScore]:
    """Each label's scores over the spans of tagged rows, rarest label last. Intervals are from resampled rows."""
    rows = [(set(spans_of(right)), set(spans_of(told))) for right, told in zip(gold, given, strict=True)]
    often = Counter(span[0] for right, _ in rows for span in right)
    often.update(dict.fromkeys((span[0] for _, told in rows for span in told), 0))
    found = []
    for label, right in often.most_common():
        counts = np.array(
            [[sum(span[0] == label for span in some) for some in (right & told, told, right)] for right, told in rows]
        )
        hits, given_, right_ = counts.T
        found.append(
            LabelScore(
                label,
                right,
                int(given_.sum()),
                _ratio(hits, given_),
                _ratio(hits, right_),
                _ratio(2 * hits, given_ + right_),
            )
        )
    return found


def _ratio(above: np.ndarray, below: np.ndarray) -> Measured | None:
    """Σ above / Σ below over rows [n], with its bootstrap interval; None of nothing."""
    if not below.sum():
        return None

    def ratio(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        sums = b.sum(axis=axis)
        return np.where(sums > 0, a.sum(axis=axis) / np.maximum(sums, 1), np.nan)

    point = float(above.sum() / below.sum())
    return Measured(point, percentile(point, (above, below), ratio, width=2))


def _f1_interval(counts: np.ndarray) -> tuple[float, float]:
    """95 % interval of one label's F1, from Wilson's of a share.

    F1 is 2s / (1 + s) of s = hits / (hits + false + missed), which is a share of rows (Hand, Christen & Kirielle 2021).
    Resampled rows would say that a label without mistakes cannot have any.

    Args:
        counts: rows [is the label, was given it].
    """
    _, false, missed, hits = map(int, counts.reshape(-1))
    low, high = wilson(hits, hits + false + missed)
    return 2 * low / (1 + low), 2 * high / (1 + high)
