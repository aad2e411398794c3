"""The report's sentences: what was compared, what may be said, how to read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from softprompt.benchmarks.compare.record import Record
from softprompt.benchmarks.compare.report import numbers
from softprompt.benchmarks.compare.report.gather import Line, Report, Table

VERDICTS = {"better": "better", "no worse": "no worse", "worse": "worse", "unclear": "can't tell"}


def verdicts(report: Report) -> list[tuple[str, str, bool]]:
    """For each table of a task's own test: (where, what may be said of its contenders, whether it is the main one)."""
    main = [id(section.main) for section in report.sections]
    return [
        (_place(report, table), verdict(report, table), id(table) in main)
        for section in report.sections
        for table in reversed(section.tables)
        if table.own
    ]


def verdict(report: Report, table: Table) -> str:
    """Who has the highest mean, and how the others stand to the reference."""
    best = table.lines[0]
    parts = [f"{best.name} has the highest mean, {value_of(best, table)}"]
    for kind, words in (
        ("better", "better than {reference}: {names}"),
        ("no worse", "no worse than {reference} by more than {margin}: {names}"),
        ("worse", "worse than {reference}: {names}"),
        ("unclear", "can't be told from {reference} with these rows and seeds: {names}"),
    ):
        found = [line.name for line in table.lines if line.comparison and line.comparison.verdict == kind]
        if found:
            parts.append(words.format(reference=report.reference, margin=margin_of(report), names=listed(found)))
    if table.reference is None:
        parts.append(f"nothing is compared, as {report.reference} has no finished run here")
    return "; ".join(parts) + "."


def _place(report: Report, table: Table) -> str:
    several = len({(one.base, one.task) for one in report.tables}) > 1
    size = "" if table.size is None else f"{table.size:,} training rows"
    parts = [f"{table.task} on {table.base}" if several else "", size]
    return ", ".join(part for part in parts if part) or table.task


def value_of(line: Line, table: Table) -> str:
    """`91.2 % (90.1 to 92.3)`."""
    bounds = numbers.interval(line.mean.interval, table.metric)
    return f"{numbers.points(line.mean.value, table.metric)}{numbers.unit_of(table.metric)} ({bounds})"


def margin_of(report: Report) -> str:
    """δ in points."""
    points = report.margin * 100
    return f"{points:g} point{'' if points == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def compared(report: Report) -> list[tuple[str, str]]:
    """What was compared, as (name, value)."""
    finals, trials = report.finals, report.results.trials
    sizes = sorted({one.place.size for one in finals if one.place.size is not None})
    facts = [
        ("bases", listed(_distinct(one.place.base for one in finals))),
        ("tasks", listed(_distinct(one.place.task for one in finals))),
        ("tested on", listed(_distinct(test for one in finals for test in one.tests))),
        ("contenders", f"{len(report.names)}: {listed(report.names)}"),
        ("training rows", listed([f"{size:,}" for size in sizes])),
        ("test rows", listed(_distinct(f"{line.mean.rows:,}" for table in report.tables for line in table.lines))),
        ("seeds", listed([str(seed) for seed in sorted({one.seed for one in finals})])),
        ("trials per method", _tried(trials)),
        ("at the grid's edge", _at_the_edge(report)),
        ("runs", f"{len(finals):,} reported, {len(trials):,} trials, {len(report.results.failed):,} failed"),
        ("reference", f"{report.reference}, margin δ = {margin_of(report)}"),
        ("time of all runs", _spent(report.results.records)),
    ]
    return [(name, value) for name, value in facts if value]


def _at_the_edge(report: Report) -> str:
    """Contenders whose chosen rate is the lowest or highest that was tried: a wider search might have found a better one."""
    found = []
    for name in report.names:
        tried = [one.lr for one in report.results.trials if one.place.contender == name and one.lr is not None]
        chosen = {one.lr for one in report.finals if one.place.contender == name}
        if len(set(tried)) > 2 and chosen & {min(tried), max(tried)}:
            found.append(name)
    return f"the rate of {listed(found)}; search.spread or lr can be wider" if found else ""


def _spent(records: Sequence[Record]) -> str:
    """Wall time of all runs, one after the other, and processor time, which other work on the machine lengthens less."""
    wall, processor = sum(one.seconds_in_all for one in records), sum(one.cpu_seconds for one in records)
    return numbers.seconds(wall) + (f", {numbers.seconds(processor)} of processor time" if processor else "")


def _tried(trials: list[Record]) -> str:
    rates: dict[str, set[float]] = {}
    for one in trials:
        if one.lr is not None:
            rates.setdefault(one.place.model_dump_json(), set()).add(one.lr)
    counts = sorted({len(found) for found in rates.values()})
    shown = listed([str(count) for count in counts])
    return f"{shown} learning rates of each method that learns by gradients, chosen on dev" if counts else ""


def origin(report: Report) -> list[tuple[str, str]]:
    """Machines, dates, commits and versions of the reported runs, whichever call made them, as (name, value)."""
    finals = report.finals
    machines = _distinct(
        ", ".join(_machine(name, value) for name, value in one.machine.items() if value not in (None, ""))
        for one in finals
    )
    dates = _distinct(sorted(one.when[:10] for one in finals))
    versions = _distinct(", ".join(f"{name} {value}" for name, value in one.versions.items()) for one in finals)
    facts = [
        ("machine", "; ".join(machines)),
        ("date", " to ".join([dates[0], dates[-1]] if len(dates) > 1 else dates)),
        ("commit", _commits(report)),
        ("versions", "; ".join(versions)),
    ]
    return [(name, value) for name, value in facts if value]


def _machine(name: str, value: object) -> str:
    if name in ("cores", "threads"):
        return f"{value} {name}"
    return (
        f"{numbers.size(float(value))} memory" if name == "memory" and isinstance(value, (int, float)) else str(value)
    )


def _commits(report: Report) -> str:
    found = _distinct(
        f"{one.commit}{' with uncommitted changes' if one.dirty else ''}" for one in report.finals if one.commit
    )
    return listed(found) or str(report.results.suite.get("commit") or "")


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def how_to_read(report: Report) -> list[str]:
    """What a value, a p and the verdicts mean."""
    return [
        "A value is the mean over seeds. Its 95\u00a0% interval covers both what another seed and what other test rows "
        "would give; for a contender that ran once, only what other rows would give. A difference is paired row by row.",
        f"p tests the difference from {report.reference}, adjusted by Holm's method for all contenders of its table. So the "
        "chance of even one false “better” or “worse” in a table is 5\u00a0%.",
        f"“No worse” means that the difference's interval lies above −δ = −{margin_of(report)}. “Can't tell” means that "
        "neither this nor a difference is shown; it is no evidence that they are equal.",
    ]


def failures(report: Report) -> list[tuple[str, str, str]]:
    """(runs in words, how many, reason), equal reasons of a contender together."""
    found: dict[tuple[str, str, str], list[Record]] = {}
    for one in report.results.failed:
        size = "" if one.place.size is None else f", {one.place.size:,} rows"
        key = (f"{one.place.named(several=True)}{size}", one.stage, one.reason or "no reason was kept")
        found.setdefault(key, []).append(one)
    lines = []
    for (place_, stage, reason), records in found.items():
        seeds = listed(sorted({str(one.seed) for one in records}))
        rates = listed([numbers.rate(rate) for rate in sorted({one.lr for one in records if one.lr is not None})])
        lines.append(
            (f"{place_}: {stage}, seed {seeds}{f', rate {rates}' if rates else ''}", str(len(records)), reason)
        )
    return lines
