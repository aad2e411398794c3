"""Figures of what a question behind the text costs: `question/table`, from `results/question`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from softprompt.benchmarks.figures import formats
from softprompt.benchmarks.question import Cost, costs

_TASKS = {
    "movie-reviews": "movie reviews",
    "product-reviews": "product reviews",
    "tweets": "tweets",
    "all": "all three",
}
_PLACES = {"behind": "behind the text", "shared": "behind the text, one instruction for all in front"}


def values(root: Path) -> Iterator[tuple[str, str]]:
    """(key, text) of the records, if there are some."""
    found = list(costs(root / "benchmarks/results/question"))
    if found:
        head = ["task", "the words stand", "in front", "there", "points [95 %]", "log loss, in front / there"]
        yield "question/table", formats.table(head, [_row(cost) for cost in found])


def _row(cost: Cost) -> list[str]:
    low, high = cost.interval
    return [
        _TASKS[cost.task],
        _PLACES[cost.place],
        formats.percent(cost.front),
        formats.percent(cost.there),
        f"{formats.points(cost.difference)} [{formats.points(low)}, {formats.points(high)}]",
        f"{cost.log_loss_front:.3f} / {cost.log_loss:.3f}",
    ]
