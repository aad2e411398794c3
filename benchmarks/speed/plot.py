"""Figures of seconds a step: against each size of a grid, or case by case."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from softprompt.benchmarks.speed.scaling import ASKED
from softprompt.errors import ConfigError, MissingExtraError

_AXES = {"T": "text tokens T", "P": "prompt length P", "B": "rows of a batch B"}


def check_plot(to: Path) -> None:
    """Look at the file before the measurements that it is to show.

    Raises:
        ConfigError: no such format.
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ModuleNotFoundError as error:
        raise MissingExtraError("--plot draws with matplotlib: pip install 'softprompt[bench]'") from error
    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if to.suffix.lower().lstrip(".") not in known:
        raise ConfigError(
            f"--plot {to}: no such format; name a file that ends in {', '.join(f'.{one}' for one in known)}"
        )


def plot(found: dict[str, Any], to: Path) -> None:
    """Write the figure of what `main` gave; the format is that of the file's name.

    Raises:
        ConfigError, MissingExtraError: nothing was measured that can be drawn; see `check_plot`.
    """
    check_plot(to)
    from matplotlib.figure import Figure  # without pyplot: no display is asked for, no state is left

    rows = [row for row in found["rows"] if row["our_seconds"] is not None]
    if not rows:
        raise ConfigError("--plot: no seconds were measured")
    of_grid = [row for row in rows if "grid" in row]
    figure = Figure(figsize=(13, 4.2) if of_grid else (8, 0.6 * len(rows) + 1.5), layout="constrained")
    if of_grid:
        _lines(figure, of_grid)
    else:
        _bars(figure, rows)
    try:
        figure.savefig(to)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--plot {to}: {error}") from error


def _lines(figure: Any, rows: list[dict[str, Any]]) -> None:
    """A panel for each size; the other two are those at which most was measured."""
    panels = figure.subplots(1, len(ASKED), sharey=True)
    for panel, (over, key) in zip(panels, ASKED.items(), strict=True):
        others = {name: other for name, other in ASKED.items() if other != key}
        for place, method in enumerate(dict.fromkeys(row["grid"] for row in rows)):
            mine = [row for row in rows if row["grid"] == method and row[key] is not None]
            if not mine:
                continue
            sides: Counter[tuple[Any, ...]] = Counter()
            for row in mine:
                sides[tuple(row[other] for other in others.values())] += 1 + (row["peer_seconds"] is not None)
            fixed = sides.most_common(1)[0][0]
            shown = [row for row in mine if tuple(row[other] for other in others.values()) == fixed]
            shown.sort(key=lambda row: row[key])
            at = ", ".join(f"{name}={value}" for name, value in zip(others, fixed, strict=True) if value is not None)
            for side, style in (("our", "o-"), ("peer", "s--")):
                points = [(row[key], row[f"{side}_seconds"]) for row in shown if row[f"{side}_seconds"] is not None]
                if points:
                    name = f"{method} ({at})" if side == "our" else f"{shown[0]['peer'].partition(',')[0]}"
                    panel.plot(*zip(*points, strict=True), style, color=f"C{place}", label=name)
        panel.set(xscale="log", yscale="log", xlabel=_AXES[over])
        ticks = sorted({row[key] for row in rows if row[key] is not None})
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(fontsize="x-small")
    panels[0].set_ylabel("seconds of a step")


def _bars(figure: Any, rows: list[dict[str, Any]]) -> None:
    """Ours and the peer's, case by case."""
    panel = figure.subplots()
    places = range(len(rows))
    for side, shift, name in (("peer", -0.2, "peer"), ("our", 0.2, "ours")):
        told = [(place + shift, row[f"{side}_seconds"]) for place, row in zip(places, rows, strict=True)]
        told = [(place, seconds) for place, seconds in told if seconds is not None]
        panel.barh([place for place, _ in told], [seconds for _, seconds in told], height=0.4, label=name)
    panel.set_yticks(list(places), [f"{row['name']}\n{row['peer']}" for row in rows], fontsize="x-small")
    panel.set(xscale="log", xlabel="seconds")
    panel.invert_yaxis()
    panel.grid(axis="x", alpha=0.3)
    panel.legend()
