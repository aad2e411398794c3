"""The table as people read it, the same on a terminal and on the page."""

from __future__ import annotations

from softprompt.benchmarks.compare.report.numbers import NOTHING, seconds, size
from softprompt.benchmarks.ways.advice import points
from softprompt.benchmarks.ways.table import Line
from softprompt.benchmarks.ways.tried import Tried


def head(found: Tried) -> list[str]:
    """Names of the columns."""
    measure = f"{found.metric} [95 % interval]"
    return ["way", measure, "log loss", "to the best", "learns in", "1,000 rows in", "size"]


def cells(found: Tried, line: Line) -> list[str]:
    """A line of the table."""
    low, high = line.interval
    part = "" if line.folds == found.folds else f" ({line.folds} of {found.folds} folds)"
    return [
        line.title + part,
        f"{line.value:.3f} [{low:.3f}, {high:.3f}]",
        NOTHING if line.loss is None else f"{line.loss:.3f}",
        "the best" if line is found.lines[0] else points(line.to_best),
        seconds(line.train_seconds) if line.labels is not None else NOTHING,
        seconds(line.predict_seconds),
        size(line.stored) if line.stored else NOTHING,
    ]
