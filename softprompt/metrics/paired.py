"""One set of answers against another on the same rows, with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .estimates import row_scores
from .measures import Interval
from .table import metric_of
from .variance import ALPHA, variance_of_difference


@dataclass(frozen=True)
class Difference:
    """A metric of one set of answers minus that of another, on the same rows.

    Attributes:
        value: above 0: the first is better.
        interval: 95 %, over rows that both have answered. It does not cover another training.

    Example:
        >>> found = difference("accuracy", ["a", "b"], ["a", "b"], ["a", "a"])
        >>> found.value, found.rows
        (0.5, 2)
    """

    metric: str
    value: float
    interval: Interval
    rows: int

    def as_dict(self) -> dict[str, Any]:
        """As written to JSON: {"metric", "value", "interval", "rows"}."""
        return {"metric": self.metric, "value": self.value, "interval": list(self.interval), "rows": self.rows}

    def __str__(self) -> str:
        """Three decimals, with signs; one on a scale from 0 to 100."""
        places = 1 if metric_of(self.metric).top == 100 else 3
        low, high = self.interval
        return f"{self.value:+.{places}f} [{low:+.{places}f}, {high:+.{places}f}]"


def difference(metric: str, gold: Sequence[Any], one: Sequence[Any], other: Sequence[Any]) -> Difference:
    """How much better one set of answers is than another.

    The rows are paired. The interval is that of `bench compare` for one training of each (docs/statistics.md).

    Args:
        gold: as in `estimate`.
        one, other: what each has answered, for the same rows.

    Raises:
        ConfigError, DataError, ValueError: see `row_scores`.
    """
    found = metric_of(metric)
    span, rows = found.top - found.bottom, len(gold)
    a, b = row_scores(metric, gold, one), row_scores(metric, gold, other)
    value = float((a - b).mean())
    half = span
    if rows > 1:
        half = float(variance_of_difference(a[None], b[None], span).quantile(1 - ALPHA / 2))
    return Difference(metric, value, (max(value - half, -span), min(value + half, span)), rows)
