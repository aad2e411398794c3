"""How a value is written: one way for each kind of value, on all pages."""

from __future__ import annotations

from collections.abc import Sequence

MINUS = "−"


def percent(value: float) -> str:
    """0.857 → 85.7 %."""
    return f"{value * 100:.1f} %"


def interval(low: float, high: float) -> str:
    """Of accuracies: [81.2, 89.3]."""
    return f"[{signless(low * 100)}, {signless(high * 100)}]"


def points(value: float) -> str:
    """A difference of accuracies, in points, with its sign: +0.4; 0.0 has none."""
    text = f"{abs(value) * 100:.1f}"
    return text if float(text) == 0 else f"{'+' if value > 0 else MINUS}{text}"


def signless(value: float) -> str:
    """One decimal, with a true minus."""
    text = f"{abs(value):.1f}"
    return f"{MINUS}{text}" if value < 0 and float(text) != 0 else text


def count(value: float) -> str:
    """115200 → 115 k; 134515008 → 135 M."""
    for size, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{name}" if value < 100 * size else f"{value / size:.0f}{name}"
    return f"{value:.0f}"


def size(value: float) -> str:
    """Bytes: 465318 → 454 KiB."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= unit:
            return f"{value / unit:.1f} {name}" if value < 10 * unit else f"{value / unit:.0f} {name}"
    return f"{value:.0f} bytes"


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
