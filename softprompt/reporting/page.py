"""A report as one HTML page that needs nothing else: no script, no font, no file beside it."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from . import words
from .drawing import Line, chart
from .report import Report

_FOLDER = Path(__file__).parent
CSS = Markup((_FOLDER / "page.css").read_text(encoding="utf-8"))
"""The style of all our pages."""


def page(report: Report) -> str:
    """The page. Equal reports give equal text."""
    env = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return env.get_template("page.html.j2").render(
        report=report, css=CSS, words=words, notes=words.notes(report), charts=_charts(report)
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
