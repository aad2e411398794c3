"""What came of it as one HTML page that needs nothing else, in the style of all our pages."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from softprompt.benchmarks.ways import words
from softprompt.benchmarks.ways.tried import Tried
from softprompt.reporting.drawing import Line, chart, intervals
from softprompt.reporting.environment import environment

_CHOSEN, _OTHER = 1, 2  # colours


def page_of(found: Tried) -> str:
    """The page. Equal results give equal text."""
    env = environment(Path(__file__).parent, words=words)
    return env.get_template("page.html.j2").render(
        title=f"{found.data.name}: which way is best", found=found, dots=_dots(found), curves=_curves(found)
    )


def _dots(found: Tried) -> Markup:
    rows = [
        (line.title, line.value, line.interval, _CHOSEN if line is found.chosen else _OTHER)
        for line in found.lines
        if line.folds == found.folds
    ]
    return intervals(f"{found.metric} of each way with its 95 % interval", rows)


def _curves(found: Tried) -> Markup | None:
    """One line a way, over the share of the labels that it learned from."""
    if not found.curves:
        return None
    most = max(point.labels or 0 for curve in found.curves for point in curve.points)
    lines = [
        Line(curve.title, [((point.labels or 0) / most, point.value) for point in curve.points], color=place, dots=True)
        for place, curve in enumerate(found.curves, 1)
    ]
    title = f"{found.metric} over the labels learned from"
    return chart(title, f"share of {most} labels learned from", found.metric, lines)
