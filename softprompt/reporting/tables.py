"""A report on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from .report import Report
from .words import MOST_SHOWN, answered_shown, best, calibrated, compared, measured, share


def tables(report: Report) -> Iterator[Table | str]:
    """Tables and lines, in the order in which they are shown; what `words.headline` says stands above them."""
    yield compared(report)
    yield from _labels(report)
    if report.answered:
        shown = Table("probability from", "rows answered", "share", "right of these", title="threshold")
        for one in answered_shown(report):
            shown.add_row(share(one.threshold), str(one.rows), f"{one.share:.0%}", measured(one.accuracy))
        yield shown
    yield from best(report)
    if report.calibration is not None:
        yield calibrated(report)
    if report.distribution is not None:
        spread = report.distribution
        names = [f"{percent} % of rows below" if 0 < percent < 100 else "lowest" for percent in spread.quantiles]
        shown = Table(*[*names[:-1], "highest"], title=f"{report.estimate.metric} of each row")
        shown.add_row(*map(share, spread.quantiles.values()))
        yield shown
        yield f"{spread.perfect:.1%} of the rows have the best value, {spread.worst:.1%} the worst"
    yield _worst(report)


def _labels(report: Report) -> Iterator[Table | str]:
    if report.labels:
        last = ["threshold"] if report.decided else []
        shown = Table("label", report.counted, "given", "precision", "recall", "F1", *last, title="by label")
        for one in report.labels[:MOST_SHOWN]:
            scores = (measured(found) for found in (one.precision, one.recall, one.f1))
            from_ = [share(one.threshold)] if report.decided else []
            shown.add_row(one.label, str(one.right), str(one.given), *scores, *from_)
        yield shown
        if (left := len(report.labels) - MOST_SHOWN) > 0:
            yield f"… and {left} labels more"
    found = report.confusion
    if found is None:
        return
    if found.counts is not None:
        shown = Table("right \\ given", *found.labels, title="confusion")
        for label, counts in zip(found.labels, found.counts, strict=True):
            shown.add_row(label, *map(str, counts))
        yield shown
    elif found.largest:
        shown = Table("right", "given", "rows", title="most frequent mistakes")
        for right, given, rows in found.largest:
            shown.add_row(right, given, str(rows))
        yield shown


def _worst(report: Report) -> Table:
    scored = report.distribution is not None
    last = ["score"] if scored else ["probability", "log loss"]
    shown = Table("row", "text", "right", "given", *last, title="worst rows", show_lines=True)
    for one in report.worst:
        numbers = [share(one.score)] if scored else [share(one.probability), share(one.loss, 2)]
        shown.add_row(one.where, one.text, one.right, one.given, *numbers)
    return shown
