"""A report's numbers and notes as people read them, the same on a terminal and on the page."""

from __future__ import annotations

from ..metrics import Measured
from .curves import Answered
from .report import Report

NOTHING = "–"
MOST_SHOWN = 40  # labels in a table; the rest stands in the JSON


def share(value: float | None, digits: int = 3) -> str:
    """A share, or a dash."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def measured(found: Measured | None) -> str:
    """A value with its interval."""
    if found is None:
        return NOTHING
    if found.interval is None:
        return share(found.value)
    return f"{found.value:.3f} [{found.interval[0]:.3f}, {found.interval[1]:.3f}]"


def headline(report: Report) -> str:
    """The metric with its interval."""
    return f"{report.estimate.metric} {report.estimate} on {report.estimate.rows} rows"


def compared(report: Report) -> str:
    """What the metric is to be compared with, and the loss."""
    least, who = report.floor
    text = f"{who}: {report.estimate.metric} {least:.3f}"
    return text if report.loss is None else f"{text}. Mean log loss of these predictions: {report.loss:.3f}"


def answered_shown(report: Report) -> list[Answered]:
    """Of the curve of answered rows, about every second point: a table of ten lines."""
    return report.answered[::2] if len(report.answered) > 12 else report.answered


def notes(report: Report) -> dict[str, str]:
    """What each part is, by its name."""
    found = {
        "labels": "Of each label: rows that have it, rows that were given it. Intervals are 95 %.",
        "confusion": "Rows are what is right, columns what was given.",
        "answered": "If only answers of at least this probability are given: how many rows are answered, and how many of "
        "the answers are right. A threshold that is chosen here looks a little too good on these rows.",
        "calibration": "Whether a probability of 0.8 means that eight of ten are right.",
        "detections": "Precision and recall if a label is given from some probability on; the threshold of the best F1 was "
        "chosen on these rows.",
        "distribution": f"{report.estimate.metric} of each row by itself.",
        "worst": "Rows whose right label got the least probability."
        if report.distribution is None
        else "Rows of the lowest score; of equal ones those whose right answer was the least likely.",
    }
    if report.decided:
        found["labels"] = (
            "Of each label: rows that have it, rows that were given it, and the probability from which on it is given. "
            "Intervals are 95 %."
        )
    elif report.confusion is None:
        found["labels"] = "Of each label's spans: in truth, and given. Intervals are 95 %, rows resampled whole."
    return found


def best(report: Report) -> list[str]:
    """A line a label that can be found by a threshold."""
    return [
        f"{one.label}: average precision {one.average_precision:.3f}; best F1 from probability {one.best.threshold:.3f} on, "
        f"with precision {one.best.precision:.3f} and recall {one.best.recall:.3f}"
        for one in report.detections
    ]


def calibrated(report: Report) -> str:
    """The expected calibration error in words; empty without probabilities."""
    if report.calibration is None:
        return ""
    error = f"expected calibration error {report.calibration.error:.3f}"
    return f"{error}: the mean distance between a probability and the share of right answers"
