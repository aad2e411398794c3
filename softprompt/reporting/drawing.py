"""Charts of shares as inline SVG, in the page's own colours: no script, no font, no library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor

from markupsafe import Markup

_WIDTH, _HEIGHT = 340, 250  # CSS pixels: a phone's width, so that text keeps its size there
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 12, 40

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        points: (x, y), both from 0 to 1.
        band: (x, low, high) of its intervals; may be empty.
        color: number of the page's CSS variable `--cN`.
        dots: each point is marked.
    """

    name: str
    points: Points
    band: Sequence[tuple[float, float, float]] = ()
    color: int = 2
    dots: bool = False


def chart(title: str, x_name: str, y_name: str, lines: Sequence[Line], diagonal: bool = False) -> Markup:
    """An `<svg>` whose x axis is from 0 to 1, and whose y axis begins at the tenth below the lowest value.

    Names of several lines stand in a key below it (`key` of `parts.html.j2`), where they hide nothing.

    Args:
        title: its text for who cannot see it.
        diagonal: draw where both axes are equal; the y axis then begins at 0.
    """
    ys = [y for line in lines for _, y in line.points] + [low for line in lines for _, low, _ in line.band]
    least = 0.0 if diagonal or not ys else min(0.9, max(0.0, floor(min(ys) * 10) / 10))

    def at(x: float, y: float) -> str:
        right = _LEFT + x * (_WIDTH - _LEFT - _RIGHT)
        down = _HEIGHT - _BOTTOM - (y - least) / (1 - least) * (_HEIGHT - _TOP - _BOTTOM)
        return f"{right:.1f},{down:.1f}"

    parts = [Markup("<title>{}</title>").format(title), *_axes(at, least, x_name, y_name)]
    if diagonal:
        parts.append(_path([at(0, 0), at(1, 1)], "stroke:var(--soft);stroke-dasharray:4 3"))
    for line in lines:
        hue = f"var(--c{line.color})"
        if line.band:
            edge = [at(x, high) for x, _, high in line.band] + [at(x, low) for x, low, _ in reversed(line.band)]
            parts.append(Markup('<polygon points="{}" style="fill:{};opacity:.18"/>').format(" ".join(edge), hue))
        parts.append(_path([at(*point) for point in line.points], f"stroke:{hue};stroke-width:1.8"))
        for x, y in line.points if line.dots else ():
            right, down = at(x, y).split(",")
            parts.append(Markup('<circle cx="{}" cy="{}" r="3" style="fill:{}"/>').format(right, down, hue))
    whole = Markup('<svg viewBox="0 0 {} {}" role="img">{}</svg>')
    return whole.format(_WIDTH, _HEIGHT, Markup("").join(parts))


def intervals(title: str, rows: Sequence[tuple[str, float, tuple[float, float], int]]) -> Markup:
    """An `<svg>` of values with their intervals, a name above each, on one scale of shares.

    Args:
        rows: (name, value, interval, number of the page's CSS variable `--cN`), the first on top.
    """
    step, top = 38, 8
    height = top + step * len(rows) + 24
    lowest = min((low for _, _, (low, _), _ in rows), default=0.0)
    least = min(0.9, max(0.0, floor(lowest * 10) / 10))
    left, right = 8, _WIDTH - 14

    def at(share: float) -> float:
        return left + (share - least) / (1 - least) * (right - left)

    parts = [Markup("<title>{}</title>").format(title)]
    text = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" style="fill:var(--ink);font-size:{}px">{}</text>')
    for tick in _ticks(least):
        parts.append(
            _path([f"{at(tick):.1f},{top}", f"{at(tick):.1f},{height - 22}"], "stroke:var(--grid);stroke-width:.8")
        )
        parts.append(text.format(at(tick), height - 8, "middle", 11, f"{tick:g}"))
    for place, (name, value, (low, high), color) in enumerate(rows):
        down, hue = top + step * place + 27, f"var(--c{color})"
        parts.append(text.format(left, down - 10, "start", 12, name))
        parts.append(_path([f"{at(low):.1f},{down}", f"{at(high):.1f},{down}"], f"stroke:{hue};stroke-width:2"))
        parts.append(Markup('<circle cx="{:.1f}" cy="{}" r="4" style="fill:{}"/>').format(at(value), down, hue))
    return Markup('<svg viewBox="0 0 {} {}" role="img">{}</svg>').format(_WIDTH, height, Markup("").join(parts))


def _ticks(least: float) -> list[float]:
    step = 0.25 if least < 0.2 else 0.1 if least < 0.75 else 0.05
    return [round(least + step * count, 2) for count in range(int((1 - least) / step + 1.001))]


def _axes(at: Callable[[float, float], str], least: float, x_name: str, y_name: str) -> list[Markup]:
    text = Markup('<text x="{}" y="{}" text-anchor="{}" style="fill:var(--{});font-size:{}px">{}</text>')
    parts = []
    for tick in _ticks(least):
        parts.append(_path([at(0, tick), at(1, tick)], "stroke:var(--grid);stroke-width:.8"))
        down = float(at(0, tick).split(",")[1])
        parts.append(text.format(_LEFT - 6, f"{down + 4:.1f}", "end", "ink", 11, f"{tick:.2f}".rstrip("0").rstrip(".")))
    for tick in (0, 0.25, 0.5, 0.75, 1):
        right = at(tick, least).split(",")[0]
        parts.append(text.format(right, _HEIGHT - _BOTTOM + 15, "middle", "ink", 11, f"{tick:g}"))
    parts.append(text.format((_WIDTH + _LEFT) / 2, _HEIGHT - 6, "middle", "ink", 12, x_name))
    turned = Markup('<text transform="translate(11 {}) rotate(-90)" text-anchor="middle" {}>{}</text>')
    style = Markup('style="fill:var(--ink);font-size:12px"')
    parts.append(turned.format((_HEIGHT - _BOTTOM) / 2, style, y_name))
    return parts


def _path(points: Sequence[str], style: str) -> Markup:
    return Markup('<polyline points="{}" style="fill:none;{}"/>').format(" ".join(points), style)
