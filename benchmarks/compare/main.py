"""`softprompt bench compare` as a function: plan, runs, report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from softprompt.benchmarks.compare import probe
from softprompt.benchmarks.compare.context import RunContext
from softprompt.benchmarks.compare.drive import Work, begin, describe, drive
from softprompt.benchmarks.compare.executors import Name, make_workers, refuse, threads_of
from softprompt.benchmarks.compare.report import write
from softprompt.benchmarks.compare.report.gather import Table, gather
from softprompt.benchmarks.compare.report.words import verdicts
from softprompt.benchmarks.compare.results import Results
from softprompt.benchmarks.compare.runs import Cell, count
from softprompt.benchmarks.compare.suite import SuiteSpec, load_suite
from softprompt.benchmarks.compare.texts import texts_of
from softprompt.errors import MissingExtraError
from softprompt.holding import held
from softprompt.interrupts import explained
from softprompt.parallel import processes
from softprompt.types import Notice, Progress, ignore_notice, ignore_progress

Plan = dict[str, Any]
"""{"rows": one for each cell, "lines": what is shared, what cannot run, what it takes}."""


def compare(
    suite: str,
    settings: Sequence[str],
    folder: Path | None = None,
    *,
    only: Sequence[str] = (),
    dry_run: bool = False,
    estimate: bool = True,
    executor: Name | None = None,
    workers: int = 1,
    address: str | None = None,
    isolate: bool = False,
    artifacts: bool = False,
    command: str = "",
    plan: Callable[[Plan], None] = lambda plan: None,
    progress: Progress = ignore_progress,
    notice: Notice = ignore_notice,
) -> dict[str, Any] | None:
    """Make a suite's runs and its report; see the command's options.

    Args:
        folder: by default `runs/NAME`.
        command: what reproduces it, for the report.
        plan: given what will be done, before it is.

    Returns:
        None of a dry run; else {"tables": as `gather` has them, "verdicts": sentences, "files", "failed": id and reason}.

    Raises:
        SoftpromptError: a suite that cannot be used. What fails in a run is recorded instead.
    """
    processes().only_one("bench compare")
    _refuse_without_report()
    spec = load_suite(suite, list(settings))
    folder = folder or Path("runs") / spec.name
    executor = executor or ("here" if workers == 1 else "pool")
    refuse(executor, workers, artifacts)
    context = RunContext(spec.cache, progress)
    if dry_run:
        work = begin(spec, folder, only, look_only=True)
        context.check(work.cells)
        plan(_plan(work, _costs(work, context, None, workers, progress) if estimate else {}, workers))
        return None
    left = "the same command goes on with the runs that are left"
    with (
        explained(lambda: left),
        held(folder, "another `bench compare` is at work here; wait for it, or give another --out"),
    ):
        work = _begun(spec, folder, only, context, notice)
        costs = _costs(work, context, folder / "probe.json", workers, progress) if estimate else {}
        plan(_plan(work, costs, workers))
        context.clear()  # workers have a base each; this one would stand beside them
        describe(work, command)
        kept = folder / "artifacts" if artifacts else None
        pool = make_workers(executor, workers, spec.cache, isolate, kept, address, progress) if work.left() else []
        drive(work, pool, isolate, progress, notice, partial(probe.expected, costs=costs))
        describe(work, command)  # now with what could not be run
        files, tables, told = report(folder)
    failed = [f"{record.id}: {record.reason}" for record in work.failed]
    return {"tables": tables, "verdicts": told, "files": files, "failed": failed}


def _begun(spec: SuiteSpec, folder: Path, only: Sequence[str], context: RunContext, notice: Notice) -> Work:
    """See `begin`; what is wrong is said before any record is moved."""
    context.check(begin(spec, folder, only, look_only=True).cells)
    work = begin(spec, folder, only)
    if work.stale:
        notice(f"{work.stale} records of other settings than the suite's were moved to {folder / 'stale'}")
    return work


def _refuse_without_report() -> None:
    """What the report needs is asked for before the hours that it reports."""
    for name in ("statsmodels", "matplotlib"):
        if find_spec(name) is None:
            raise MissingExtraError(f"bench compare needs {name}: pip install 'softprompt[bench]'")


def _costs(
    work: Work, context: RunContext, path: Path | None, workers: int, progress: Progress
) -> dict[str, probe.Cost]:
    """What a run of each contender takes on a worker's share of the cores, if any is to be made."""
    if not work.left():
        return {}
    before = torch.get_num_threads()
    torch.set_num_threads(threads_of(workers))
    try:
        return probe.probe(work.cells, context, path, progress)
    finally:
        torch.set_num_threads(before)


def report(folder: Path) -> tuple[list[Path], list[Table], list[str]]:
    """Write the report of a results folder.

    Returns:
        The files, the tables, and the sentences that say what they show.

    Raises:
        DataError: it is no results folder, or nothing in it has been tested.
    """
    results = Results.load(folder)
    found = gather(results)
    return write(found, texts_of(results)), found.tables, [f"{place}: {said}" for place, said, _ in verdicts(found)]


def _plan(work: Work, costs: dict[str, probe.Cost], workers: int) -> Plan:
    rows = [_row(cell, costs.get(probe.key_of(cell))) for cell in work.cells]
    lines = probe.shared(work.cells, costs)
    lines += [f"cannot run: {name}: {problem}" for name, problem in _problems(work.cells, costs).items()]
    done = work.total - work.left()
    lines.append(f"{work.total} runs in all" + (f", {done} of them done" if done else ""))
    if costs:
        seconds = probe.total(work.cells, costs) / workers * work.left() / max(1, work.total)
        lines.append(f"expected: about {seconds / 60:.0f} min with {workers} worker{'s' if workers > 1 else ''}")
    return {"rows": rows, "lines": lines}


def _row(cell: Cell, cost: probe.Cost | None) -> dict[str, Any]:
    trials, place = count(cell) - len(cell.seeds), cell.place
    unknown = cost is None or cost.problem or cell.contender.kind != "method"
    expected = "–" if unknown or cost is None else f"{probe.seconds(cell, cost) / 60:.1f} min"
    return {
        "contender": place.contender,
        "base": place.base,
        "task": place.task,
        "size": "–" if place.size is None else place.size,
        "trials": trials or "–",
        "finals": len(cell.seeds),
        "expected": expected,
        "plan": "" if cost is None else cost.problem or cost.plan,
    }


def _problems(cells: Sequence[Cell], costs: dict[str, probe.Cost]) -> dict[str, str]:
    several = len({(cell.place.base, cell.place.task) for cell in cells}) > 1
    found = {cell.place.named(several): costs.get(probe.key_of(cell), probe.Cost()).problem for cell in cells}
    return {name: problem for name, problem in found.items() if problem}
