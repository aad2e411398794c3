"""How much a setting matters: the test metric over what contenders of one family differ in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from softprompt.benchmarks.compare.report.charts import SMALL, Chart, axis_of
from softprompt.benchmarks.compare.report.figures import INK, SOFT, Charts, Dash, Look
from softprompt.benchmarks.compare.report.gather import Line, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES: list[Dash] = ["-", "--", ":", "-.", (0, (5, 1, 1, 1))]
Value = str | int | float | None


def factors(charts: Charts, table: Table, looks: dict[str, Look]) -> list[Chart]:
    """A panel for each family and each of its settings that has several values: lines of numbers, dots of categories."""
    found = []
    for family in dict.fromkeys(line.place.family for line in table.lines if line.place.factors):
        own = [line for line in table.lines if line.place.family == family and line.place.factors]
        for factor in sorted({key for line in own for key in line.place.factors}):
            lines = [line for line in own if factor in line.place.factors]
            if len({line.place.factors[factor] for line in lines}) > 1:
                found.append(_panel(charts, table, f"{family}: {factor}", factor, lines, looks))
    return found


def _panel(charts: Charts, table: Table, title: str, factor: str, lines: list[Line], looks: dict[str, Look]) -> Chart:
    values = list(dict.fromkeys(line.place.factors[factor] for line in lines))
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    ordered: list[Value] = sorted(values, key=(lambda value: value) if numeric else str)
    groups = _groups(factor, lines)
    with charts.style():
        axes = charts.axes(SMALL[0] * 1.15, SMALL[1] * (1.15 if len(groups) == 1 else 1.15 + 0.08 * len(groups)))
        as_log = numeric and _is_wide(ordered)
        if as_log:
            axes.set_xscale("log")
        for number, (rest, group) in enumerate(groups.items()):
            places = [_place(line.place.factors[factor], ordered, numeric) for line in group]
            shift = 0.0 if numeric else (number - (len(groups) - 1) / 2) * 0.16
            _draw(
                axes,
                table,
                group,
                [x + shift for x in places],
                looks,
                _STYLES[number % len(_STYLES)] if numeric else "",
            )
            if rest:
                axes.plot(
                    [], [], color=SOFT, ls=_STYLES[number % len(_STYLES)] if numeric else "", marker="", label=rest
                )
        axes.set_xticks(
            [_place(value, ordered, numeric) for value in ordered],
            [
                f"{value:g}" if isinstance(value, (int, float)) else "none" if value is None else value
                for value in ordered
            ],
        )
        axes.minorticks_off()
        if not numeric:
            axes.set_xlim(-0.5, len(ordered) - 0.5)
        axes.set_xlabel(factor)
        axes.set_ylabel(axis_of(table.metric))
        axes.set_title(title, loc="left")
        if len(groups) > 1 and numeric:
            axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return Chart(title, charts.svg(axes, f"{table.metric.name} over {title}"))


def _groups(factor: str, lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Lines that are equal in all other settings, by these in words."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        rest = ", ".join(f"{key}={value}" for key, value in sorted(line.place.factors.items()) if key != factor)
        found.setdefault(rest, []).append(line)
    return found


def _is_wide(values: list[Value]) -> bool:
    ends = [float(value) for value in (values[0], values[-1]) if isinstance(value, (int, float))]
    return ends[0] > 0 and ends[1] / ends[0] >= 8


def _place(value: Value, ordered: list[Value], numeric: bool) -> float:
    return float(value) if numeric and isinstance(value, (int, float)) else float(ordered.index(value))


def _draw(axes: Axes, table: Table, lines: list[Line], xs: list[float], looks: dict[str, Look], style: Dash) -> None:
    scale = table.scale
    order = sorted(range(len(lines)), key=lambda i: xs[i])
    if style:
        axes.plot([xs[i] for i in order], [lines[i].mean.value * scale for i in order], color=SOFT, ls=style, lw=1)
    for i in order:
        look, mean = looks[lines[i].name], lines[i].mean
        axes.plot([xs[i]] * 2, [bound * scale for bound in mean.interval], color=look.hue, lw=1.1)
        axes.plot(xs[i], mean.value * scale, look.marker, color=look.hue, mec=INK, mew=0.3)
