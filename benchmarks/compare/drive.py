"""A suite from its start to its report: what can run is given to free workers, what has ended is written down at once."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path

from softprompt.benchmarks import provenance
from softprompt.benchmarks.compare.execute import Done
from softprompt.benchmarks.compare.executors import Worker
from softprompt.benchmarks.compare.record import Record, read_all, write
from softprompt.benchmarks.compare.results import suite_in
from softprompt.benchmarks.compare.runs import Cell, Run, cells_of, count, left, next_runs, runs_of
from softprompt.benchmarks.compare.suite import SuiteSpec
from softprompt.config import suggest
from softprompt.errors import ConfigError
from softprompt.storage import plain_disk_errors, write_json
from softprompt.types import Notice, Progress, ignore_notice, ignore_progress


@dataclass
class Work:
    """A suite in a folder: its cells, and the records that are there.

    Attributes:
        records: by id; failed and skipped ones of earlier calls are not among them, so they are tried again.
        earlier: those.
        stale: records of other settings than the suite's now, moved to DIR/stale.
    """

    suite: SuiteSpec
    folder: Path
    cells: list[Cell]
    records: dict[str, Record] = field(default_factory=dict)
    earlier: dict[str, Record] = field(default_factory=dict)
    stale: int = 0

    @property
    def total(self) -> int:
        """Runs in all, if all go well."""
        return sum(count(cell) for cell in self.cells)

    @property
    def failed(self) -> list[Record]:
        """Runs that failed."""
        return [record for record in self.records.values() if record.status == "failed"]

    @property
    def skipped(self) -> dict[str, str]:
        """Contenders that cannot run here (of several bases or tasks, where), and why; those of earlier calls, too."""
        there = self.earlier | self.records
        skipped = [there[name] for name in sorted(there) if there[name].status == "skipped"]
        several = len(self.suite.bases) * len(self.suite.tasks) > 1
        return {record.place.named(several): str(record.reason) for record in skipped}

    def tidy(self) -> None:
        """Put aside what the suite does not ask for any more: other seeds, or the runs of a rate that was chosen before."""
        there = self.earlier | self.records
        for cell in self.cells:
            known = runs_of(cell, self.records)
            if any(run.id not in self.records for run in known):
                continue
            wanted = {run.id for run in known}
            for name, record in there.items():
                if record.digests.get("settings") == cell.settings and name not in wanted:
                    self.put_aside(name)

    def put_aside(self, name: str) -> None:
        """Move a record to DIR/stale."""
        with plain_disk_errors(self.folder / "stale"):
            (self.folder / "stale").mkdir(exist_ok=True)
            shutil.move(self.folder / "runs" / f"{name}.json", self.folder / "stale" / f"{name}.json")
        self.records.pop(name, None)
        self.earlier.pop(name, None)
        self.stale += 1

    def left(self) -> int:
        """Runs still to be made, as far as can be said."""
        return sum(left(cell, self.records) for cell in self.cells)


def begin(suite: SuiteSpec, folder: Path, only: Sequence[str] = (), look_only: bool = False) -> Work:
    """The suite's cells, and what the folder holds of them. Records of other settings are put aside, unless `look_only`.

    Raises:
        ConfigError: `only` names no contender, or the folder is another suite's.
        DataError: a record that cannot be read.
    """
    everything = cells_of(suite)
    if (other := suite_in(folder).get("name", suite.name)) != suite.name:
        raise ConfigError(f"{folder}: holds the results of suite {other!r}, not of {suite.name!r}; give another --out")
    names = {cell.place.contender for cell in everything} | {cell.place.family for cell in everything}
    for name in only:
        if name not in names:
            raise ConfigError(f"--only: no contender {name!r}{suggest(name, names)}")
    chosen = [cell for cell in everything if not only or {cell.place.contender, cell.place.family} & set(only)]
    work = Work(suite, folder, chosen)
    for part in () if look_only else ("", "runs", "rows"):
        for half in (folder / part).glob(".*.tmp"):  # a kill while it was written
            shutil.rmtree(half) if half.is_dir() else half.unlink()
    known = {cell.settings for cell in everything}
    for name, record in read_all(folder).items():
        if record.digests.get("settings") not in known:
            if not look_only:
                work.put_aside(name)
        else:
            (work.records if record.status == "done" else work.earlier)[name] = record
    return work


def describe(work: Work, command: str) -> None:
    """Write `suite.json`: what the report says of the suite itself, with all commands that had parts of it made."""
    commit, dirty = provenance.commit()
    suite, before = work.suite.model_dump(mode="json"), suite_in(work.folder)  # with nulls: of `test` it is no default
    commands = str(before["command"]).splitlines() if before.get("suite") == suite and before.get("command") else []
    held = {
        "name": work.suite.name,
        "title": work.suite.title,
        "command": "\n".join(dict.fromkeys([*commands, command])),
        "reference": work.suite.reference,
        "margin": work.suite.margin,
        "cut": [*work.suite.cut, *(f"left out: {name}: {reason}" for name, reason in work.skipped.items())],
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "commit": commit,
        "dirty": dirty,
        "when": provenance.now(),
        "suite": suite,
    }
    write_json(work.folder / "suite.json", held)


def drive(
    work: Work,
    workers: Sequence[Worker],
    isolate: bool = False,
    progress: Progress = ignore_progress,
    notice: Notice = ignore_notice,
    expected: Callable[[Cell], float] | None = None,
    may_begin: Callable[[Run], bool] = lambda run: True,
) -> None:
    """Make all runs that are not there yet. Each is written when it ends, so a kill costs the runs under way.

    Args:
        expected: seconds of a cell. Where there are several workers the longest is begun first, so that none waits long for
            another at the end.
        isolate: give every run a new process.
        may_begin: asked before a run begins; what may not is left for another call.
        progress: of runs, where workers are other processes.
    """
    busy: dict[Future[Done], tuple[Worker, Run]] = {}
    last: dict[int, tuple[str, str, str]] = {}  # what a worker has just worked on
    free = list(workers)
    began, done, total = time.monotonic(), 0, work.left()
    try:
        while True:
            started = {run.id for _, run in busy.values()}
            waiting = [run for run in _waiting(work, started) if may_begin(run)]
            while free and waiting:
                worker = free.pop(0)
                others = [run for _, run in busy.values()]
                run = _nearest(waiting, last.get(id(worker)), others, expected if len(workers) > 1 else None)
                waiting.remove(run)
                if isolate and not worker.fresh:
                    worker.restart()
                last[id(worker)] = run.cell.key
                busy[worker.submit(run)] = (worker, run)
                if any(future.done() for future in busy):
                    break  # a worker in this process: write before the next run
            if not busy:
                work.tidy()
                return
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                worker, run = busy.pop(future)
                record, rows = _outcome(future, worker, run)
                write(work.folder, record, rows)
                work.records[record.id] = record
                free.append(worker)
                done += 1
                progress(f"runs, {record.id}", done, max(done, total))
                notice(_line(record, done, max(done, total), time.monotonic() - began))
    finally:
        for worker in workers:
            worker.close()


def _waiting(work: Work, started: set[str]) -> list[Run]:
    return [run for cell in work.cells for run in next_runs(cell, work.records) if run.id not in started]


def _nearest(
    waiting: list[Run],
    last: tuple[str, str, str] | None,
    elsewhere: list[Run],
    expected: Callable[[Cell], float] | None,
) -> Run:
    """The run that uses most of what the worker holds; else one of a contender that no other worker is at; else of the longest
    cell; else the first."""
    others = {run.cell.key for run in elsewhere}

    def far(run: Run) -> tuple[bool, bool, bool, float]:
        same = last is not None and run.cell.key[:2] == last[:2]
        length = expected(run.cell) if expected else 0.0
        return (last is not None and not same, run.cell.key != last, run.cell.key in others, -length)

    return min(waiting, key=far)  # of equals the first


def _outcome(future: Future[Done], worker: Worker, run: Run) -> Done:
    """What a run gave; if its process has died, a record that says so, and a new process for the next."""
    try:
        return future.result()
    except Exception as error:
        worker.restart()
        record = run.record()
        record.status = "failed"
        record.reason = f"its process ended ({type(error).__name__}): out of memory, or killed"
        record.when = provenance.now()
        return record, {}


def _line(record: Record, done: int, total: int, seconds: float) -> str:
    """One line for the log."""
    if record.status != "done":
        return f"{done}/{total} {record.id}: {record.status.upper()}: {record.reason}"
    found = {"dev": record.dev, **record.tests}
    shown = ", ".join(f"{name} {one.value:.3f}" for name, one in found.items() if one is not None)
    left = seconds / done * (total - done)
    return f"{done}/{total} {record.id}: {shown} ({record.seconds_in_all:.0f} s; about {left / 60:.0f} min left)"
