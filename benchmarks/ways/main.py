"""`softprompt try` as a function: look, plan, cross-validate as far as the time suffices, say what to take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from softprompt.benchmarks.compare import probe
from softprompt.benchmarks.compare.drive import Work, begin, describe, drive
from softprompt.benchmarks.compare.executors import Here
from softprompt.benchmarks.compare.report.numbers import seconds
from softprompt.benchmarks.compare.results import Results, suite_in
from softprompt.benchmarks.compare.runs import Cell, left
from softprompt.benchmarks.speed.schedule import Speed
from softprompt.benchmarks.ways.advice import RULE, about_labels, advice, recommended
from softprompt.benchmarks.ways.budget import Budget, rows_that_fit, seconds_of_the_cheap
from softprompt.benchmarks.ways.page import page_of
from softprompt.benchmarks.ways.suite import FOLDS, Way, suite_for, ways_of
from softprompt.benchmarks.ways.table import Line, lines_of, runs_as
from softprompt.benchmarks.ways.tried import Tried
from softprompt.benchmarks.ways.winner import in_scikit_learn, write_run
from softprompt.config import suggest
from softprompt.errors import ConfigError, SoftpromptError
from softprompt.holding import held
from softprompt.interrupts import explained
from softprompt.parallel import processes
from softprompt.proposal import Proposal, look, propose_run
from softprompt.storage import write_text
from softprompt.types import Notice, Progress, ignore_notice, ignore_progress


def try_rows(
    data: Path,
    text: Sequence[str] = (),
    label: str | None = None,
    *,
    minutes: float = 3.0,
    folder: Path | None = None,
    base: str = "smollm2",
    encoder: str = "minilm",
    only: Sequence[str] = (),
    page: Path | None = None,
    command: str = "",
    progress: Progress = ignore_progress,
    notice: Notice = ignore_notice,
) -> Tried:
    """Find out which way is best for the labels of a file of rows.

    Args:
        text, label: columns; guessed where they are not named.
        minutes: that it may take; ways that are trained step by step begin as long as they will end in time.
        folder: in which the runs are kept, so that a second call goes on; by default `runs/try-NAME`.
        base, encoder: bundled names or folders.
        only: contenders to run, by their names in the suite; all if none.
        page: also write an HTML page.
        command: what the user typed, for the records.

    Raises:
        SoftpromptError: the file cannot be used, holds no labels, or nothing could be run.
    """
    ends = time.monotonic() + 60 * minutes
    processes().only_one("softprompt try")
    proposal = _classification(data, text, label)
    every = ways_of(encoder, base)
    ways = _chosen(every, only)
    folder = folder or Path("runs") / f"try-{proposal.task['name']}"
    speed = Speed.measured(base)
    rows = _rows_before(folder, proposal) or rows_that_fit(proposal, minutes, speed)
    _say_the_plan(proposal, rows, seconds_of_the_cheap(proposal, rows, speed), minutes, notice)
    suite = suite_for(proposal, every, rows)
    with (
        explained(lambda: "the same command goes on with the runs that are left"),
        held(folder, "another command is at work here; wait for it, or give another --out"),
    ):
        work = begin(suite, folder)
        names = {way.contender for way in ways}
        work.cells = [
            cell for cell in work.cells if cell.place.contender in names
        ]  # a suite has rows that nobody named
        describe(work, command)
        budget = _run(work, ways, ends, progress, notice)
        describe(work, command)
        found = _told(proposal, work, ways, rows, budget)
        if page is not None:
            write_text(page, page_of(found))
    return found


def _classification(data: Path, text: Sequence[str], label: str | None) -> Proposal:
    """
    Raises:
        ConfigError: the file's rows have no labels to choose from.
    """
    seen = look(data, text, [] if label is None else [label])
    if seen.roles.kind != "classification":
        raise ConfigError(
            f"{data}: its rows are for {seen.roles.kind}; try is for rows with one label each. `softprompt new` writes a "
            "run for these, `softprompt bench compare` compares methods on it"
        )
    return propose_run(seen)


def _chosen(ways: list[Way], only: Sequence[str]) -> list[Way]:
    names = list(dict.fromkeys(way.contender for way in ways))
    for name in only:
        if name not in names:
            raise ConfigError(f"--only: no way {name!r}{suggest(name, names)}")
    return [way for way in ways if not only or way.contender in only]


def _rows_before(folder: Path, proposal: Proposal) -> int | None:
    """How many rows an earlier call in this folder has tried, if it was on the same task."""
    before = suite_in(folder).get("suite") or {}
    return before.get("test") if before.get("tasks") == [proposal.task] else None


def _say_the_plan(proposal: Proposal, rows: int, cheap: float, minutes: float, notice: Notice) -> None:
    every = sum(map(len, proposal.splits.values()))
    sample = f"a sample of {rows} of its {every} rows" if rows < every else f"all of its {rows} rows"
    notice(
        f"{proposal.seen.path}: {len(proposal.seen.labels)} labels; {sample}, in {FOLDS} folds: each row is tested once, by "
        "what was learned from the other folds"
    )
    notice(
        f"expected: about {seconds(cheap)} for what is not trained step by step; the rest as far as {minutes:g} min suffice"
    )


def _run(work: Work, ways: Sequence[Way], ends: float, progress: Progress, notice: Notice) -> Budget:
    """Make the runs: cheap ones first, then what is trained step by step, fold by fold."""
    here = Here(work.suite.cache, None, progress)
    budget = Budget(ends)
    dear = {way.contender for way in ways if way.dear}

    def make(chosen: Callable[[Cell], bool]) -> None:
        drive(
            work,
            [here],
            progress=progress,
            may_begin=lambda run: chosen(run.cell) and budget.allows(run, work.records),
        )

    make(lambda cell: cell.place.contender not in dear)
    for cell in [cell for cell in work.cells if cell.place.contender in dear]:
        if not left(cell, work.records):
            continue
        if budget.left > 0 and cell.settings not in budget.expected:
            cost = probe.probe([cell], here.context, progress=progress)[probe.key_of(cell)]
            budget.expected[cell.settings] = probe.seconds(cell, cost) / len(cell.seeds)
            title = _title(ways, cell.place.contender)
            notice(
                f"{title}: about {seconds(budget.expected[cell.settings])} a fold, {seconds(max(0.0, budget.left))} left"
            )
        make(lambda one, cell=cell: one is cell)  # type: ignore[misc]
    return budget


def _title(ways: Sequence[Way], contender: str) -> str:
    return next(way.title for way in ways if way.contender == contender)


def _told(proposal: Proposal, work: Work, ways: Sequence[Way], rows: int, budget: Budget) -> Tried:
    """
    Raises:
        SoftpromptError: nothing has ended well.
    """
    results, folds = Results.load(work.folder), len(work.suite.seeds)
    lines, curves = lines_of(results, ways, work.suite.sizes[0], folds)
    if not lines:
        why = f": {work.failed[0].reason}" if work.failed else "; give it more --minutes"
        raise SoftpromptError(f"{proposal.seen.path}: nothing could be tried{why}")
    chosen = recommended(lines, ways, folds)
    labels = about_labels(curves, chosen)
    file = work.folder / "best.yaml"
    command = write_run(chosen.way, proposal, file)
    return Tried(
        proposal.seen.path,
        work.folder,
        proposal.seen.labels,
        lines[0].tested.metric,
        rows,
        sum(map(len, proposal.splits.values())),
        folds,
        lines,
        curves,
        chosen,
        [*advice(lines, chosen, folds), *([labels] if labels else []), RULE],
        _left_out(work, ways, lines, budget, folds),
        in_scikit_learn(proposal) if chosen.way.contender == "tfidf" else [],
        file if command else None,
        command,
    )


def _left_out(work: Work, ways: Sequence[Way], lines: Sequence[Line], budget: Budget, folds: int) -> list[str]:
    """What a reader would miss in the table."""
    ended = {line.way.key: line.folds for line in lines}
    told = []
    for way in ways:
        if ended.get(way.key) == folds:
            continue
        own = [one for one in work.records.values() if runs_as(way, one.place)]
        troubles = [one.reason for one in own if one.status != "done" and one.reason]
        if troubles:
            told.append(f"{way.title} could not run: {troubles[0]}")
        else:
            fold = budget.late.get(way.contender, 0.0)
            takes = f" (about {seconds(fold)} a fold)" if fold else ""
            count = f"{ended[way.key]} of {folds} folds" if way.key in ended else "nothing"
            told.append(
                f"{way.title}: {count} of it fit into the time{takes}; the same command goes on, --minutes gives more"
            )
    return told
