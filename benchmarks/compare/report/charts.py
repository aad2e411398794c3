"""The charts: fronts, learning curves, sensitivity, looks at dev."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from softprompt.answers import LIKELIHOOD
from softprompt.benchmarks.compare.record import Record
from softprompt.benchmarks.compare.report import numbers
from softprompt.benchmarks.compare.report.figures import GRID, HEIGHT, INK, WIDTH, Charts, Look
from softprompt.benchmarks.compare.report.gather import Line, Section, Table, points_of
from softprompt.benchmarks.compare.report.labels import name_ends, name_points
from softprompt.metrics import Metric, metric_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMALL = (260, 170)
_LONGEST = 18  # letters of a name inside a chart


@dataclass(frozen=True)
class Chart:
    """A drawing, or why there is none."""

    title: str
    svg: str = ""
    note: str = ""


_ROUND: dict[Callable[[float], str], list[float]] = {  # where ticks may stand
    numbers.count: [10.0**power for power in range(13)],
    numbers.seconds: [0.001, 0.01, 0.1, 1, 10, 60, 600, 3600, 36_000, 360_000],
    numbers.size: [2.0**power for power in range(0, 45, 5)],
}
Costs = list[tuple[str, Callable[[Line], "float | None"], Callable[[float], str], str]]
COSTS: Costs = [
    ("trained parameters", lambda line: line.trained, numbers.count, ""),
    ("time until usable (encode + train + look)", lambda line: line.working_seconds, numbers.seconds, ""),
    (
        "peak memory",
        lambda line: line.peak_memory,
        numbers.size,
        "not measured: run with --isolate",
    ),
    (
        "size of the artifact",
        lambda line: line.over_seeds("artifact_bytes") or 0.0,
        numbers.size,
        "no artifact was kept",
    ),
]


def fronts(charts: Charts, table: Table, looks: dict[str, Look]) -> list[Chart]:
    """The metric against each cost."""
    found = [_front(charts, table, looks, *cost) for cost in COSTS]
    return sorted(found, key=lambda chart: bool(chart.note))


def front_of(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other point beats: none costs as little (or less) and is better; by cost ascending."""
    found: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not found or points[i][1] > points[found[-1]][1]:
            found.append(i)
    return found


def _front(
    charts: Charts,
    table: Table,
    looks: dict[str, Look],
    cost: str,
    of: Callable[[Line], float | None],
    shown: Callable[[float], str],
    missing: str,
) -> Chart:
    lines = [line for line in table.lines if of(line) is not None]
    costs = [of(line) or 0.0 for line in lines]
    if not any(costs):
        return Chart(cost.capitalize(), note=missing or "not measured")
    zero, places = _with_zero(costs)
    values = [_shown(line.mean.value, table.metric) for line in lines]
    best = front_of(list(zip(places, values, strict=True)))
    with charts.style():
        axes = charts.axes()
        axes.set_xscale("log")
        for i, line in enumerate(lines):
            look, pale = looks[line.name], 1.0 if i in best else 0.4
            low, high = (_shown(bound, table.metric) for bound in line.mean.interval)
            axes.plot([places[i]] * 2, [low, high], color=look.hue, alpha=pale * 0.6, lw=1.1)
            axes.plot(places[i], values[i], look.marker, color=look.hue, alpha=pale, zorder=3)
        spread = max(places) / min(places)
        room = max(spread**0.12, 1.6)
        axes.set_xlim(min(places) / room, max(places) * room)
        path = _steps([(places[i], values[i]) for i in best], max(places) * room)
        axes.plot(*zip(*path, strict=True), color=INK, lw=1, alpha=0.6)
        _cost_ticks(axes, places, zero, shown)
        axes.set_xlabel(cost)
        axes.set_ylabel(axis_of(table.metric))
        order = [*best, *(i for i in range(len(lines)) if i not in best)]
        name_points(
            axes, [(places[i], values[i], _short(lines[i].name), looks[lines[i].name].hue) for i in order], path
        )
        svg = charts.svg(axes, f"{table.metric.name} against {cost}, {table.title}")
    return Chart(cost.capitalize(), svg)


def _steps(front: list[tuple[float, float]], end: float) -> list[tuple[float, float]]:
    """Corners of the front's line, which goes on to the right at the best value."""
    path = front[:1]
    for x, y in front[1:]:
        path += [(x, path[-1][1]), (x, y)]
    return [*path, (end, path[-1][1])]


def _with_zero(costs: list[float]) -> tuple[float | None, list[float]]:
    """A logarithmic axis has no 0: it stands left of the smallest cost. (its place or None, all places)."""
    least = min(cost for cost in costs if cost > 0)
    if min(costs) > 0:
        return None, costs
    zero = least / max(10.0, (max(costs) / least) ** 0.2)
    return zero, [cost or zero for cost in costs]


def _cost_ticks(axes: Axes, places: list[float], zero: float | None, shown: Callable[[float], str]) -> None:
    real = [place for place in places if place != zero]
    ticks = [tick for tick in _ROUND[shown] if min(real) * 0.7 <= tick <= max(real) * 1.4]
    while len(ticks) > 4:
        ticks = ticks[::-2][::-1]
    if len(ticks) < 2:
        ticks = sorted({min(real), max(real)})
    if zero is not None:
        ticks = [zero, *(tick for tick in ticks if tick > zero * 3)]
        axes.axvline(math.sqrt(zero * min(real)), color=GRID, lw=3)
    axes.set_xticks(ticks, ["0" if tick == zero else shown(tick).replace(".0 ", " ") for tick in ticks])
    axes.minorticks_off()


def learning_curves(charts: Charts, section: Section, looks: dict[str, Look]) -> Chart | None:
    """The metric over training sizes; None of fewer than two."""
    tables = [table for table in section.of_test(section.tests[0]) if table.size is not None]
    if len(tables) < 2:
        return None
    sizes = [table.size for table in tables if table.size]
    ends = []
    with charts.style():
        axes = charts.axes(WIDTH, HEIGHT * 1.25)
        axes.set_xscale("log")
        metric = section.main.metric
        shown = _by_name(tables)
        for number, (name, found) in enumerate(shown.items()):
            look, values = looks[name], [_shown(line.mean.value, metric) for line in found]
            if found[0].place.size is None:
                axes.axhline(values[0], color=look.hue, lw=1.1, ls=(0, (4, 3)))
            else:
                # so that bars do not hide each other
                aside = (sizes[-1] / sizes[0]) ** (0.006 * (number - len(shown) / 2))
                xs = [(line.place.size or 0) * aside for line in found]
                bounds = [[_shown(edge, metric) for edge in line.mean.interval] for line in found]
                errors = [
                    [max(0.0, value - low) for value, (low, _) in zip(values, bounds, strict=True)],
                    [max(0.0, high - value) for value, (_, high) in zip(values, bounds, strict=True)],
                ]
                axes.errorbar(xs, values, errors, color=look.hue, marker=look.marker, ls=look.line, elinewidth=0.9)
            ends.append((values[-1], _short(name), look.hue))
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("training rows")
        axes.set_ylabel(axis_of(metric))
        name_ends(axes, ends, HEIGHT * 1.25)
        return Chart("Learning curves", charts.svg(axes, f"{metric.name} over training rows"))


def _by_name(tables: list[Table]) -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = {}
    for table in tables:
        for line in table.lines:
            if line.place.size is not None or line.name not in found:
                found.setdefault(line.name, []).append(line)
    return found


def rates(charts: Charts, section: Section, looks: dict[str, Look]) -> list[Chart]:
    """The dev metric over learning rates, a panel a family at the main table's size; early rounds paler, chosen ones ringed."""
    size = section.main.size
    there = [one for one in section.trials if one.place.size == size and one.place.contender in looks]
    trials = [one for one in there if one.lr is not None and one.dev is not None]
    chosen = {(line.name, record.lr) for line in section.main.lines for record in line.records}
    panels = []
    for family in dict.fromkeys(
        one.place.family for one in sorted(trials, key=lambda one: list(looks).index(one.place.contender))
    ):
        own = [one for one in trials if one.place.family == family]
        with charts.style():
            axes = charts.axes(*SMALL)
            axes.set_xscale("log")
            names = list(dict.fromkeys(one.place.contender for one in own))
            for name in names:
                _rate_line(axes, [one for one in own if one.place.contender == name], looks[name], chosen)
            ticks = sorted({one.lr for one in own if one.lr})
            ticks = ticks if len(ticks) <= 3 else [ticks[0], ticks[len(ticks) // 2], ticks[-1]]
            axes.set_xticks(ticks, [numbers.rate(tick, 2) for tick in ticks])
            axes.minorticks_off()
            axes.set_title(_short(family), loc="left")
            assert own[0].dev is not None
            axes.set_ylabel(axis_of(metric_of(own[0].dev.metric), "dev "))
            panels.append(Chart(family, charts.svg(axes, f"dev metric over learning rates, {family}")))
    return panels


def _rate_line(axes: Axes, trials: list[Record], look: Look, chosen: set[tuple[str, float | None]]) -> None:
    last = max(one.round or 0 for one in trials)
    for number in range(last + 1):
        points = [
            (one.lr, _shown(one.dev.value, metric_of(one.dev.metric)), (one.place.contender, one.lr) in chosen)
            for one in trials
            if (one.round or 0) == number and one.lr is not None and one.dev is not None
        ]
        points.sort(key=lambda point: point[0])
        xs, ys = [lr for lr, _, _ in points], [y for _, y, _ in points]
        pale = 1.0 if number == last else 0.4
        axes.plot(xs, ys, color=look.hue, marker=look.marker, ms=4.5, ls=look.line, alpha=pale, lw=1.2)
        for lr, y, is_chosen in points:
            if number == last and is_chosen:
                axes.plot(lr, y, "o", ms=11, mfc="none", mec=INK, mew=1.2)


def looks_at_dev(charts: Charts, table: Table, looks: dict[str, Look]) -> list[Chart]:
    """The dev metric over steps, a panel a contender, a line a seed, the kept step marked."""
    panels = []
    for line in table.lines:
        runs = [record for record in line.records if len(record.curve) > 1]
        if not runs:
            continue
        metric, look = metric_of(runs[0].dev.metric) if runs[0].dev else table.metric, looks[line.name]
        by_likelihood = runs[0].curve[0].metric == LIKELIHOOD  # of answers that are written, which looks do not write
        with charts.style():
            axes = charts.axes(*SMALL)
            for record in runs:
                points = [(one.step, one.value if by_likelihood else _shown(one.value, metric)) for one in record.curve]
                axes.plot(*zip(*points, strict=True), color=look.hue, lw=1, alpha=0.75)
                if kept := [point for point in points if point[0] == record.best_step]:
                    axes.plot(*kept[0], look.marker, color=look.hue, ms=6)
            axes.set_title(_short(line.name), loc="left")
            axes.set_xlabel("step")
            axes.set_ylabel("dev log-likelihood" if by_likelihood else axis_of(metric, "dev "))
            panels.append(Chart(line.name, charts.svg(axes, f"looks at dev over steps, {line.name}")))
    return panels


def _shown(value: float, metric: Metric) -> float:
    return value * points_of(metric)


def axis_of(metric: Metric, before: str = "") -> str:
    """What an axis of this metric is called, with its unit."""
    unit = numbers.unit_of(metric).strip()
    return f"{before}{metric.name}{f', {unit}' if unit else ''}"


def _short(name: str) -> str:
    """Cut in the middle, as what names of a family differ in stands at their end."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2 - 1]}…{name[-_LONGEST // 2 :]}"
