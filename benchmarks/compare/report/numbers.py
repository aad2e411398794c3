"""Numbers as people read them. A minus is a real minus sign, and what is not known is a dash."""

from __future__ import annotations

from collections.abc import Sequence

from softprompt.metrics import Metric
from softprompt.metrics.measures import Interval

NOTHING = "–"


def plain(value: float, digits: int = 1, sign: bool = False) -> str:
    """A number with a minus sign, never −0.0; with a plus sign on request."""
    text = f"{round(value, digits) + 0.0:{'+' if sign else ''},.{digits}f}"
    return (text.lstrip("+") if float(text.replace(",", "")) == 0 else text).replace("-", "−")


def unit_of(metric: Metric) -> str:
    """`\u00a0%` of shares, nothing of scores of their own scale."""
    return "\u00a0%" if (metric.top, metric.bottom) == (1.0, 0.0) else ""


def points(value: float, metric: Metric, sign: bool = False) -> str:
    """A metric's value, or a difference, in hundredths of its best value."""
    return plain(value * 100 / metric.top, 1, sign)


def interval(bounds: Interval, metric: Metric, sign: bool = False) -> str:
    """Both bounds, as `points` has them."""
    return f"{points(bounds[0], metric, sign)} to {points(bounds[1], metric, sign)}"


def p_value(p: float) -> str:
    """Two digits, or `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def count(value: float | None) -> str:
    """A number of things: 950, 12.3 k, 4.2 M."""
    return _scaled(value, 1000, ("", " k", " M", " G", " T"))


def size(value: float | None) -> str:
    """Bytes: 512 B, 1.5 KiB, 2.0 MiB."""
    return _scaled(value, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def _scaled(value: float | None, step: int, units: tuple[str, ...]) -> str:
    if value is None:
        return NOTHING
    power = 0
    while round(value) >= step and power < len(units) - 1:
        value, power = value / step, power + 1
    return f"{value:.0f}{units[power]}" if power == 0 or value >= 100 else f"{value:.1f}{units[power]}"


def seconds(value: float | None) -> str:
    """Seconds below two minutes, else minutes, else hours."""
    if value is None:
        return NOTHING
    if value < 120:
        return f"{value:.2f} s" if value < 1 else f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def rate(value: float, digits: int = 3) -> str:
    """A learning rate: 0.003, 2e-5."""
    return f"{value:.{digits}g}".replace("e-0", "e-").replace("-", "−")


def as_text(answer: str | Sequence[str]) -> str:
    """An answer as the report shows it; the tags of a row's words are one text."""
    return answer if isinstance(answer, str) else " ".join(answer)
