"""The report as Markdown, as GitHub shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from softprompt.benchmarks.compare.report import numbers, words
from softprompt.benchmarks.compare.report.gather import Line, Report, Table
from softprompt.benchmarks.compare.report.page import title_of


def markdown(report: Report) -> str:
    """Verdicts, rankings, costs, what was cut, the command; charts are on the page."""
    suite = report.results.suite
    parts = [f"# {text(title_of(report))}"]
    if failed := words.failures(report):
        parts += [
            "**Runs that failed, in none of the tables:**",
            _list([f"{run}: {reason}" for run, _, reason in failed]),
        ]
    parts.append(_list([f"{place}: {said}" for place, said, _ in words.verdicts(report)]))
    facts = [*words.compared(report), *words.origin(report)]
    parts.append(_table(["", ""], [[name, value] for name, value in facts], "ll"))
    if cut := suite.get("cut"):
        parts += ["**Cut:**", _list([str(line) for line in cut])]
    parts.append(text(" ".join(words.how_to_read(report))))
    for section in report.sections:
        parts.append(f"## {text(section.task)} on {text(section.base)}")
        for table in sorted(section.tables, key=lambda table: (not table.own, table.test, -(table.size or 0))):
            parts += [f"### {text(table.title)}", _ranking(report, table), *(text(note) for note in table.notes)]
        parts += [f"### Cost: {text(section.main.title)}", _costs(section.main)]
    if command := suite.get("command"):
        parts += ["## Run it again", _fenced(str(command))]
    return "\n\n".join(parts) + "\n"


def _ranking(report: Report, table: Table) -> str:
    unit = numbers.unit_of(table.metric)
    header = ["contender", f"{table.metric.name}{f',{unit}' if unit else ''}", "95\u00a0% interval", "verdict"]
    header += [f"difference to {report.reference}", "p (Holm)", "trained", "artifact", "train", "tokens/s", "seeds"]
    return _table(header, [_line(report, table, line) for line in table.lines], "lrrlrrrrrrr")


def _line(report: Report, table: Table, line: Line) -> list[str]:
    found, verdict, difference, p = line.comparison, numbers.NOTHING, numbers.NOTHING, numbers.NOTHING
    if found:
        bounds = numbers.interval(found.interval, table.metric, True)
        difference = f"{numbers.points(found.difference, table.metric, True)} ({bounds})"
        verdict, p = words.VERDICTS[found.verdict], numbers.p_value(found.p_holm)
    elif line.name == report.reference:
        verdict = "reference"
    return [
        f"{line.name}{'' if line.learned else ' (not trained)'}",
        numbers.points(line.mean.value, table.metric),
        numbers.interval(line.mean.interval, table.metric),
        verdict,
        difference,
        p,
        numbers.count(line.trained),
        numbers.size(line.over_seeds("artifact_bytes")),
        numbers.seconds(line.over_seeds("seconds.train")) if line.learned else numbers.NOTHING,
        numbers.count(line.over_seeds("tokens.per_second")),
        str(line.mean.seeds),
    ]


def _costs(table: Table) -> str:
    header = ["contender", "time until usable", "peak memory", "tokens of 1,000 requests", "… shared part kept"]
    lines = []
    for line in table.lines:
        requests = [line.over_seeds("tokens.request"), line.over_seeds("tokens.request_kept")]
        counts = [numbers.count(None if one is None else one * 1000) for one in requests]
        spent = [numbers.seconds(line.working_seconds), numbers.size(line.peak_memory)]
        lines.append([line.name, *spent, *counts])
    return _table(header, lines, "lrrrr")


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], align: str) -> str:
    rule = [":---" if side == "l" else "---:" for side in align]
    return "\n".join(
        f"| {' | '.join(cells)} |" for cells in [list(map(text, header)), rule, *[map(text, one) for one in lines]]
    )


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {text(line)}" for line in lines)


def _fenced(command: str) -> str:
    fence = "```"
    while fence in command:
        fence += "`"
    return f"{fence}bash\n{command}\n{fence}"


def text(value: Any) -> str:
    """One line without markup: names and reasons are others' words."""
    plain = " ".join(str(value).split())
    return "".join(f"\\{char}" if char in "\\`*_<>[]#|~&" else char for char in plain)
