"""How a value is written: one way for each kind of value, on all pages."""

from __future__ import annotations

from collections.abc import Sequence

from softprompt.benchmarks.compare.report.numbers import count as count
from softprompt.benchmarks.compare.report.numbers import plain
from softprompt.benchmarks.compare.report.numbers import size as size


def percent(value: float) -> str:
    """0.857 → 85.7 %."""
    return f"{value * 100:.1f} %"


def interval(low: float, high: float) -> str:
    """Of accuracies: [81.2, 89.3]."""
    return f"[{signless(low * 100)}, {signless(high * 100)}]"


def points(value: float) -> str:
    """A difference of accuracies, in points, with its sign: +0.4; 0.0 has none."""
    return plain(value * 100, sign=True)


def signless(value: float) -> str:
    """One decimal, with a true minus and no plus."""
    return plain(value)


def seconds(value: float) -> str:
    """58.6 → 59 s; 2034 → 34 min; 3.004 → 3.0 s."""
    if value >= 5400:
        return f"{value / 3600:.1f} h"
    if value >= 120:
        return f"{value / 60:.0f} min" if value >= 600 else f"{value / 60:.1f} min"
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"


def times(value: float) -> str:
    """A ratio: 45.2 → 45; 3.31 → 3.3."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))
