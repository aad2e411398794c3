"""What the report says, computed once: tables of contenders with their statistics, and what else the records hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from softprompt.benchmarks.compare.record import Place, Record
from softprompt.benchmarks.compare.report.numbers import as_text
from softprompt.benchmarks.compare.results import Results, Tested
from softprompt.benchmarks.compare.statistics import Comparison, Mean, compare_all, mean_over, scores_of
from softprompt.errors import DataError
from softprompt.metrics import Metric, metric_of

MARGIN = 0.02


@dataclass(frozen=True)
class Line:
    """One contender on one test.

    Attributes:
        scores: [seeds, n].
        comparison: with the table's reference; None of the reference itself, and where there is none on the same rows.
    """

    tested: Tested
    scores: np.ndarray
    mean: Mean
    comparison: Comparison | None = None

    @property
    def name(self) -> str:
        """The contender's name."""
        return self.tested.place.contender

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.tested.place

    @property
    def records(self) -> list[Record]:
        """One a seed."""
        return self.tested.records

    @property
    def learned(self) -> bool:
        """Whether it saw labelled training rows and fitted something to them."""
        return is_learned(self.place, self.records)

    @property
    def answers(self) -> list[str]:
        """What most seeds answered, row by row [n]; the first of equals. Tags are one text."""
        runs = [[as_text(answer) for answer in run] for run in self.tested.predicted]
        return [Counter(row).most_common(1)[0][0] for row in zip(*runs, strict=True)]

    def over_seeds(self, name: str) -> float | None:
        """Mean over seeds of a number of the record by its path, e.g. `tokens.request`; None if no seed has it."""
        found = [value for record in self.records if (value := _at(record, name)) is not None]
        return float(np.mean(found)) if found else None

    @property
    def peak_memory(self) -> float | None:
        """Mean bytes at most: of the GPU where there is one, else resident; None where it was not measured."""
        return self.over_seeds("peak_cuda") or self.over_seeds("peak_rss")

    @property
    def trained(self) -> float:
        """Numbers that are learned; 0 where nothing is."""
        return self.over_seeds("trained") or 0.0

    @property
    def working_seconds(self) -> float:
        """Mean seconds until it can be used: encode + train + look."""
        return sum(self.over_seeds(f"seconds.{part}") or 0.0 for part in ("encode", "train", "look"))


@dataclass(frozen=True)
class Table:
    """All contenders of one base, task, size and test, the best mean first.

    Attributes:
        size: labelled rows; None only if no contender has a size.
        reference: the line that the others are compared with; None: it is not among them.
        notes: what a reader must know of it.
    """

    base: str
    task: str
    size: int | None
    test: str
    metric: Metric
    lines: list[Line]
    reference: Line | None
    notes: list[str]

    @property
    def scale(self) -> float:
        """Points to one unit of the metric."""
        return points_of(self.metric)

    @property
    def own(self) -> bool:
        """Whether the test is the task's own."""
        return self.test == self.task

    @property
    def title(self) -> str:
        """Its place in words."""
        size = "" if self.size is None else f", {self.size:,} training rows"
        return f"{self.test}{size}" if self.own else f"tested on {self.test}{size}"


@dataclass(frozen=True)
class Section:
    """One base and task.

    Attributes:
        tables: by test, the task's own first, then by size.
        trials: of this base and task, done.
    """

    base: str
    task: str
    tables: list[Table]
    trials: list[Record]

    @property
    def tests(self) -> list[str]:
        """Tests, the task's own first."""
        return list(dict.fromkeys(table.test for table in self.tables))

    def of_test(self, test: str) -> list[Table]:
        """Tables of a test, by size ascending."""
        return [table for table in self.tables if table.test == test]

    @property
    def main(self) -> Table:
        """The first test at the largest size that the reference was trained at; where at none, at the largest."""
        own = self.of_test(self.tests[0])
        return next((table for table in reversed(own) if table.reference), own[-1])


@dataclass(frozen=True)
class Report:
    """All of it.

    Attributes:
        names: contenders in the order of the suite, as far as it says.
        margin: share of the metric's range.
    """

    results: Results
    names: list[str]
    families: list[str]
    learned: dict[str, bool]
    reference: str
    margin: float
    sections: list[Section] = field(default_factory=list)

    @property
    def tables(self) -> list[Table]:
        """Of all sections."""
        return [table for section in self.sections for table in section.tables]

    @property
    def finals(self) -> list[Record]:
        """Reported runs that ended well."""
        return [record for record in self.results.records if record.stage == "final" and record.status == "done"]


def points_of(metric: Metric) -> float:
    """Points to one unit of a metric: 100 of metrics up to 1, 1 of metrics up to 100."""
    return 100.0 / metric.top


def is_learned(place: Place, records: Sequence[Record]) -> bool:
    """Whether a contender fitted something to training rows: it has a size, learned numbers or a learning rate."""
    return place.size is not None or any(record.trained or record.lr is not None for record in records)


def gather(results: Results) -> Report:
    """Compute all tables of a results folder.

    Raises:
        DataError: it has no reported run; a record lacks its answers.
        MissingExtraError: statsmodels is not installed.
    """
    groups = results.tested()
    if not groups:
        failed = f" ({len(results.failed)} failed, the first: {results.failed[0].reason})" if results.failed else ""
        raise DataError(f"{results.folder}: no reported run has ended well{failed}; run the suite to its end")
    groups.sort(key=lambda group: (group.place.contender, group.place.size or 0))
    names = _order([(group.place.contender, group.place, group.records) for group in groups], results.suite)
    reference, margin = str(results.suite.get("reference", "full")), float(results.suite.get("margin", MARGIN))
    lines = [_line(group) for group in groups]
    learned = {name: any(line.learned for line in lines if line.name == name) for name in names}
    families = list(dict.fromkeys(line.place.family for name in names for line in lines if line.name == name))
    report = Report(results, names, families, learned, reference, margin)
    pairs = list(dict.fromkeys((line.place.base, line.place.task) for line in lines))
    for base, task in sorted(pairs):
        here = [line for line in lines if (line.place.base, line.place.task) == (base, task)]
        trials = [one for one in results.trials if (one.place.base, one.place.task) == (base, task)]
        report.sections.append(Section(base, task, _tables(here, trials, report), trials))
    return report


def _line(group: Tested) -> Line:
    scores = scores_of(group)
    metric = metric_of(group.metric)
    return Line(group, scores, mean_over(scores, (metric.bottom, metric.top)))


def _order(groups: list[tuple[str, Place, list[Record]]], suite: dict[str, Any]) -> list[str]:
    """Names: the unlearned ones first, the reference last, between them as the suite has them, else by name."""
    resolved = suite.get("suite") or {}
    listed = [str(one.get("name", "")) for one in resolved.get("contenders") or [] if isinstance(one, dict)]
    places = {name: place for place, name in enumerate(listed)}

    def key(name: str) -> tuple[bool, bool, int, list[tuple[int, str]]]:
        own = [(place, records) for other, place, records in groups if other == name]
        family = own[0][0].family
        found = places.get(name, places.get(family, len(places)))
        parts = [
            (int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)
        ]  # length=5 before length=20
        return any(is_learned(*one) for one in own), name == suite.get("reference", "full"), found, parts

    return sorted({name for name, _, _ in groups}, key=key)


def _tables(lines: list[Line], trials: list[Record], report: Report) -> list[Table]:
    """Of one base and task."""
    task = lines[0].place.task
    tests = sorted({line.tested.test for line in lines}, key=lambda test: (test != task, test))
    found = []
    for test in tests:
        here = [line for line in lines if line.tested.test == test]
        sizes: list[int | None] = [*sorted({line.place.size for line in here if line.place.size is not None})]
        for size in sizes or [None]:
            tried = dict.fromkeys(one.place.contender for one in trials if one.place.size == size)
            at_size = [line for line in here if line.place.size in (None, size)]
            found.append(_table(at_size, test, size, list(tried), report))
    return found


def _table(lines: list[Line], test: str, size: int | None, tried: list[str], report: Report) -> Table:
    # a name may stand for two places here (with a size and without); the one that was trained at this size is meant
    by_name = {line.name: line for line in sorted(lines, key=lambda line: line.place.size is not None)}
    reference = by_name.get(report.reference)
    first = reference or max(by_name.values(), key=lambda line: line.mean.value)
    metric = metric_of(first.tested.metric)
    notes = []
    same = {name: line for name, line in by_name.items() if _rows(line) == _rows(first)}
    if others := [name for name in by_name if name not in same]:
        notes.append(f"Tested on other rows, so not compared here: {', '.join(others)}.")
    if reference is None:
        notes.append(f"The reference {report.reference} has no finished run here, so nothing is compared with it.")
    if untested := [name for name in tried if name not in by_name]:
        notes.append(f"Tried, but no reported run has ended well, so not in this table: {', '.join(untested)}.")
    most = max(len(line.records) for line in by_name.values())
    if once := [line.name for line in same.values() if most > 1 and line.learned and len(line.records) == 1]:
        notes.append(
            f"Trained once: {', '.join(once)}. Their intervals and p values do not cover what another training would "
            "give. So “better” and “worse” are wrong in more than 5 % of such tables."
        )
    few = (line for line in by_name.values() if len(line.records) < most)
    if short := [line.name for line in few if line.learned or len(line.records) > 1]:  # what is not trained runs once
        notes.append(f"Fewer seeds than the others ({most}): {', '.join(short)}.")
    compared: dict[str, Comparison] = {}
    if reference is not None:
        scores = {name: line.scores for name, line in same.items()}
        seeds = {name: line.tested.seeds for name, line in same.items()}
        theirs = seeds[report.reference]
        if parted := [name for name, own in seeds.items() if min(len(own), len(theirs)) > 1 and own != theirs]:
            notes.append(
                f"Has other seeds than {report.reference}; those that both have are compared: {', '.join(parted)}."
            )
        found = compare_all(scores, report.reference, report.margin, points_of(metric), seeds)
        compared = {one.one: one for one in found}
    ranked = sorted(same.values(), key=lambda line: (-line.mean.value, report.names.index(line.name)))
    lines = [Line(line.tested, line.scores, line.mean, compared.get(line.name)) for line in ranked]
    return Table(first.place.base, first.place.task, size, test, metric, lines, reference, notes)


def _rows(line: Line) -> tuple[list[str], str]:
    return line.tested.rows, line.tested.metric


def _at(record: Record, path: str) -> float | None:
    value: Any = record
    for name in path.split("."):
        value = getattr(value, name)
    return value
