"""What probabilities are worth: how good answers are above a threshold, and whether 0.8 means eight of ten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics import Measured
from ..metrics.measures import wilson

_STEPS = 20  # points of the curve of answered rows
_POINTS = 60  # of a curve of precision and recall
_BINS = 10


@dataclass(frozen=True)
class Answered:
    """Rows that are answered if only answers of at least this probability are given.

    Attributes:
        share: of all rows.
        accuracy: of the answers that are given.
    """

    threshold: float
    rows: int
    share: float
    accuracy: Measured


@dataclass(frozen=True)
class Bin:
    """Rows whose answer's probability lies between two bounds.

    Attributes:
        probability: its mean over the rows.
    """

    low: float
    high: float
    rows: int
    probability: float
    accuracy: Measured


@dataclass(frozen=True)
class Calibration:
    """Whether probabilities are shares of right answers.

    Attributes:
        error: expected calibration error: mean over rows of |accuracy − probability| of the row's bin (Guo et al. 2017, eq. 3).
        bins: of equal width; empty ones are left out.
    """

    error: float
    bins: list[Bin]


@dataclass(frozen=True)
class Point:
    """Precision and recall of a label that is given from this probability on."""

    threshold: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Detection:
    """One of two labels, taken as what is to be found.

    Attributes:
        average_precision: mean precision over recalls (scikit-learn).
        best: where F1 is highest. It was chosen on these rows, so it looks too good on them.
        points: by threshold.
    """

    label: str
    average_precision: float
    best: Point
    points: list[Point]


def answered(probabilities: Sequence[float], hits: Sequence[bool]) -> list[Answered]:
    """From all rows to the surest twentieth.

    Args:
        probabilities: of the answers that were given [n].
        hits: whether each is right [n].
    """
    values, right = np.asarray(probabilities), np.asarray(hits)
    descending = np.sort(values)[::-1]
    rows = np.unique(np.ceil(len(values) * np.arange(_STEPS, 0, -1) / _STEPS).astype(int))[::-1]
    found: dict[int, Answered] = {}
    for count in rows:
        threshold = float(descending[count - 1])
        above = values >= threshold
        given, good = int(above.sum()), int(right[above].sum())
        found[given] = Answered(threshold, given, given / len(values), Measured(good / given, wilson(good, given)))
    return list(found.values())


def calibration(probabilities: Sequence[float], hits: Sequence[bool]) -> Calibration:
    """Probabilities against shares of right answers; see `answered`."""
    values, right = np.asarray(probabilities), np.asarray(hits)
    places = np.minimum((values * _BINS).astype(int), _BINS - 1)
    bins = []
    for place in np.unique(places):
        inside = places == place
        rows, good = int(inside.sum()), int(right[inside].sum())
        accuracy = Measured(good / rows, wilson(good, rows))
        bins.append(Bin(place / _BINS, (place + 1) / _BINS, rows, float(values[inside].mean()), accuracy))
    error = sum(one.rows * abs(one.accuracy.value - one.probability) for one in bins) / len(values)
    return Calibration(error, bins)


def detection(label: str, gold: Sequence[str], probabilities: Sequence[float]) -> Detection | None:
    """Precision and recall of a label over thresholds of its probability; None where no row has it."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    truth = np.array([right == label for right in gold])
    if not truth.any():
        return None
    precision, recall, thresholds = precision_recall_curve(truth, probabilities)
    points = [Point(*map(float, each)) for each in zip(thresholds, precision, recall, strict=False)]
    best = max(points, key=lambda one: one.precision * one.recall / max(one.precision + one.recall, 1e-12))
    kept = np.unique(np.linspace(0, len(points) - 1, _POINTS).astype(int))
    average = float(average_precision_score(truth, probabilities))
    return Detection(label, average, best, [points[place] for place in kept])
