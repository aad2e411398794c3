"""Names beside points and lines, none upon another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

_AROUND = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]
_GAPS = (7, 16, 28, 42)  # points between a mark and its name


def name_points(
    axes: Axes, marks: Sequence[tuple[float, float, str, str]], path: Sequence[tuple[float, float]] = ()
) -> None:
    """Write each mark's name beside it: (x, y, name, colour), the most important first.

    Places round the mark are tried from near to far. A name that is far off gets a thin line to its mark. A name for
    which there is no room is left out (the page's key has it).

    Args:
        path: corners of a line of steps, which no name may cross.
    """
    figure = cast("Figure", axes.figure)  # of their own, and no part of one
    canvas = cast("FigureCanvasAgg", figure.canvas)
    figure.draw_without_rendering()  # settles the layout, so that places are final
    figure.set_layout_engine("none")
    renderer, inside = canvas.get_renderer(), axes.get_window_extent()
    unit = figure.dpi / 72
    dots = [axes.transData.transform((x, y)) for x, y, _, _ in marks]
    taken = [(px - 5 * unit, py - 5 * unit, px + 5 * unit, py + 5 * unit) for px, py in dots]
    corners = [axes.transData.transform(corner) for corner in path]
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        taken.append((min(x0, x1) - unit, min(y0, y1) - unit, max(x0, x1) + unit, max(y0, y1) + unit))
    for (x, y, name, color), dot in zip(marks, dots, strict=True):
        text = axes.annotate(name, (x, y), (0, 0), textcoords="offset points", fontsize=9, color=color, zorder=5)
        box = text.get_window_extent(renderer)
        place = _free(box.width, box.height, dot, unit, taken, inside)
        text.remove()
        if place is None:
            continue
        left, bottom, gap = place
        taken.append((left, bottom, left + box.width, bottom + box.height))
        axes.annotate(
            name,
            (x, y),
            ((left - dot[0]) / unit, (bottom - dot[1]) / unit),
            textcoords="offset points",
            fontsize=9,
            color=color,
            zorder=5,
            arrowprops={"arrowstyle": "-", "lw": 0.6, "color": color, "shrinkB": 4} if gap > _GAPS[1] else None,
        )


def _free(
    width: float,
    height: float,
    dot: np.ndarray,
    unit: float,
    taken: list[tuple[float, float, float, float]],
    inside: Bbox,
) -> tuple[float, float, float] | None:
    """(left, bottom, gap) of the first place that is free."""
    for gap in _GAPS:
        for dx, dy in _AROUND:
            left = dot[0] + dx * gap * unit - width * (0.5 - dx / 2)
            bottom = dot[1] + dy * gap * unit - height * (0.5 - dy / 2)
            box = (left, bottom, left + width, bottom + height)
            if box[0] < inside.x0 or box[1] < inside.y0 or box[2] > inside.x1 or box[3] > inside.y1 + 4 * unit:
                continue
            if not any(_cross(box, other) for other in taken):
                return left, bottom, gap
    return None


def _cross(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def name_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], height: float) -> None:
    """Write the names of lines at the right edge: (y, name, colour), moved apart where they would touch.

    Args:
        height: of the chart in CSS pixels, about three quarters of which are the axes.
    """
    low, high = axes.get_ylim()
    gap = (high - low) * 11 / (height * 0.75)
    ordered = sorted(ends, key=lambda end: end[0])
    places = [y for y, _, _ in ordered]
    for _ in range(200):  # push neighbours apart until none touch
        moved = False
        for i in range(len(places) - 1):
            lack = gap - (places[i + 1] - places[i])
            if lack > gap * 1e-3:
                places[i], places[i + 1], moved = places[i] - lack / 2, places[i + 1] + lack / 2, True
        if not moved:
            break
    across = axes.get_yaxis_transform()
    for place, (y, name, color) in zip(places, ordered, strict=True):
        axes.plot([1.0, 1.03], [y, place], transform=across, color=color, lw=0.6, clip_on=False)
        axes.text(1.04, place, name, transform=across, color=color, fontsize=9, va="center")
    axes.set_ylim(low, high)
