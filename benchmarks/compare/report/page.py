"""The report as one HTML page that needs nothing else: no script, no font, no file beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from softprompt.benchmarks.compare.report import charts as drawn
from softprompt.benchmarks.compare.report import numbers, words
from softprompt.benchmarks.compare.report.answers import MOST_LABELS, agreement, confusions, examples
from softprompt.benchmarks.compare.report.factors import factors
from softprompt.benchmarks.compare.report.figures import Charts, Look, looks_of
from softprompt.benchmarks.compare.report.gather import Line, Report, Section, Table
from softprompt.reporting import environment

Texts = Callable[[str], Mapping[str, str]]
DRAWING = 150  # width of the drawing beside a number, CSS pixels


@dataclass(frozen=True)
class Ruler:
    """Where values stand in the drawings of one table."""

    low: float
    high: float

    def x(self, value: float) -> float:
        """CSS pixels from the drawing's left edge; what is off the scale stands at its edge."""
        value = min(max(value, self.low), self.high)
        return round(6 + (value - self.low) / (self.high - self.low) * (DRAWING - 12), 1)


def page(report: Report, texts: Texts | None = None) -> str:
    """The page.

    Args:
        texts: of a test, its rows' texts by `file:line`, for the examples.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    drawing = {"value_of": words.value_of, "ruler": ruler, "width": DRAWING}
    env = environment(Path(__file__).parent, numbers=numbers, words=words, **drawing)
    env.filters |= {"count": numbers.count, "size": numbers.size, "seconds": numbers.seconds, "p": numbers.p_value}
    lines = [line for table in report.tables for line in table.lines]
    families = {line.name: line.place.family for line in lines}
    looks = looks_of(report.names, families, report.learned, report.reference)
    made, overview = Charts(), [table for table in report.tables if table.own]
    sections = [_section(report, section, made, looks, texts) for section in report.sections]
    return env.get_template("page.html.j2").render(
        report=report,
        title=title_of(report),
        looks={name: {"color": look.css, "path": Markup(look.path)} for name, look in looks.items()},  # ours
        sections=sections,
        overview=overview if len(overview) > 1 else [],
        cut=[str(line) for line in report.results.suite.get("cut") or []],
        command=str(report.results.suite.get("command") or ""),
    )


def title_of(report: Report) -> str:
    """The suite's title, or its name."""
    return str(report.results.suite.get("title") or report.results.suite.get("name") or "Comparison")


def ruler(table: Table, margin: float) -> Ruler:
    """From the lowest to the highest bound of the learned contenders' intervals and the reference's margin.

    What is not learned is mostly far below, and would press the others together; it stands at the edge.

    Args:
        margin: a share of the metric's range.
    """
    lines = [line for line in table.lines if line.learned]
    bounds = [bound for line in (lines if len(lines) > 1 else table.lines) for bound in line.mean.interval]
    if table.reference:
        value, room = table.reference.mean.value, margin * table.metric.top
        bounds += [max(value - room, table.metric.bottom), min(value + room, table.metric.top)]
    return Ruler(min(bounds), max(bounds) if max(bounds) > min(bounds) else min(bounds) + 1)


def _section(
    report: Report, section: Section, made: Charts, looks: dict[str, Look], texts: Texts | None
) -> dict[str, Any]:
    main = section.main
    curves = drawn.learning_curves(made, section, looks)
    labels, matrices = confusions(main)
    tested = [table for test in section.tests for table in section.of_test(test) if table.size == main.size]
    transfer = tested if len(section.tests) > 1 else []
    return {
        "section": section,
        "main": main,
        "fronts": _safe(drawn.fronts(made, main, looks)),
        "curves": _safe([curves] if curves else []),
        "rates": _safe(drawn.rates(made, section, looks)),
        "factors": _safe(factors(made, main, looks)),
        "dev": _safe(drawn.looks_at_dev(made, main, looks)),
        "labels": labels,
        "too_many": len(labels) > MOST_LABELS,
        "confusions": matrices,
        "agreement": _agreement(main),
        "examples": examples(main, texts(main.test) if texts else None),
        "transfer": transfer,
        "transferred": {table.test: {line.name: line for line in table.lines} for table in transfer},
    }


def _safe(charts: list[drawn.Chart]) -> list[dict[str, Any]]:
    """Charts with their SVG as markup: an XML library wrote it, names escaped."""
    return [{"title": chart.title, "svg": Markup(chart.svg), "note": chart.note} for chart in charts]


def _agreement(table: Table) -> list[tuple[Line, list[float]]]:
    if len(table.lines) < 2:
        return []
    return [(line, np.round(row, 4).tolist()) for line, row in zip(table.lines, agreement(table), strict=True)]
