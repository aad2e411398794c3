"""A report as one HTML page that needs nothing else: no script, no font, no file beside it."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from . import words
from .drawing import Line, chart
from .environment import environment
from .report import Report


def page(report: Report) -> str:
    """The page. Equal reports give equal text."""
    env = environment(Path(__file__).parent, words=words)
    return env.get_template("page.html.j2").render(
        title=report.title, report=report, notes=words.notes(report), charts=_charts(report)
    )


def _charts(report: Report) -> dict[str, Markup]:
    """Drawings by the part that they stand in."""
    found: dict[str, Markup] = {}
    if report.answered:
        points = [(one.share, one.accuracy.value) for one in report.answered]
        band = [(one.share, *(one.accuracy.interval or (0.0, 1.0))) for one in report.answered]
        line = Line("accuracy", points, band)
        found["answered"] = chart("Accuracy over the share of rows answered", "share of rows answered", "right", [line])
    if report.calibration is not None:
        bins = report.calibration.bins
        band = [(one.probability, *(one.accuracy.interval or (0.0, 1.0))) for one in bins]
        line = Line("right", [(one.probability, one.accuracy.value) for one in bins], band, dots=True)
        found["calibration"] = chart("Right answers over probability", "probability", "right", [line], diagonal=True)
    if report.detections:
        lines = [
            Line(one.label, [(point.recall, point.precision) for point in one.points], color=place)
            for place, one in enumerate(report.detections, 1)
        ]
        found["detections"] = chart("Precision over recall", "recall", "precision", lines)
    return found
