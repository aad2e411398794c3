"""Which runs a suite has, and which of them can be started, given what is there: search first, then the reported seeds."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from softprompt.benchmarks.compare.later import later_defaults
from softprompt.benchmarks.compare.rates import rates_of
from softprompt.benchmarks.compare.record import Place, Record
from softprompt.benchmarks.compare.suite import ContenderSpec, SearchSpec, SuiteSpec, label_of, repeated
from softprompt.errors import ConfigError
from softprompt.renamed import with_first_keys
from softprompt.run_reader import resolved_task
from softprompt.runfile import BaseSpec, TrainSpec
from softprompt.storage import digest_of, sha256_file
from softprompt.tasks import Task
from softprompt.training.keeping import best_of

LEAST_DEV = 16  # rows; fewer choose by chance
LONGEST_PART = 60  # letters of a name in a record's name; a file's name has room for 255 bytes


@dataclass(frozen=True)
class Cell:
    """One contender at one size on one base and task.

    Attributes:
        task, tests: as mappings that mean the same from any folder.
        train: settings of training without the rate.
        dev, test: rows of this size's dev and of the test (None: as the task has it).
        pool, dev_pool: training and dev rows of the suite's largest size, which decide what is left for which split.
        settings: digest of all that its results depend on, but for rate, seed and share of the steps.
    """

    suite: str
    place: Place
    base: dict[str, Any]
    task: dict[str, Any]
    tests: tuple[dict[str, Any], ...]
    contender: ContenderSpec
    train: dict[str, Any]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    search: SearchSpec
    dev: int
    test: int | None
    draws: str
    pool: int
    dev_pool: int
    settings: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Cells with equal keys use the same encoded rows most."""
        return (self.place.base, self.place.task, self.contender.name)


@dataclass(frozen=True)
class Run:
    """One training or baseline: a cell, a rate, a seed."""

    cell: Cell
    stage: Literal["trial", "final"]
    seed: int
    lr: float | None
    share: float = 1.0
    round: int | None = None

    @property
    def id(self) -> str:
        """Name of the record: readable, and another one for other settings."""
        place = self.cell.place
        parts = [part[:LONGEST_PART] for part in (place.task, place.base, place.contender)]
        parts += [f"n{place.size}"] if place.size is not None else []
        parts += [self.stage if self.round is None else f"{self.stage}{self.round}"]
        parts += [f"lr{self.lr:.3g}"] if self.lr is not None else []
        parts += [f"s{self.seed}", digest_of([self.cell.settings, self.lr, self.share])[:8]]
        return re.sub(r"[^\w.=+-]+", "-", "_".join(parts))

    def record(self) -> Record:
        """An empty record of this run."""
        cell = self.cell
        return Record(
            id=self.id,
            suite=cell.suite,
            stage=self.stage,
            place=cell.place,
            seed=self.seed,
            lr=self.lr,
            share=self.share,
            round=self.round,
            digests={"settings": cell.settings},
        )


def cells_of(suite: SuiteSpec) -> list[Cell]:
    """All cells, in the order in which one process best works through them.

    Raises:
        ConfigError: a task that cannot be used; two bases or tasks that a table could not tell apart.
    """
    found = []
    tasks, tests = ([_named(task) for task in part] for part in (suite.tasks, suite.tests))
    for part, names in (
        ("bases", [label_of(base) for base in suite.bases]),
        ("tasks", [name for name, _ in tasks]),
        ("tests", [name for name, _ in tests]),
    ):
        if twice := repeated(names):
            raise ConfigError(
                f"{part}: {', '.join(twice)} there twice; results are told apart by name, so each needs its own"
            )
    if unlike := [name for name, task in tests if dict(tasks).get(name, task) != task]:
        raise ConfigError(f"tests: {unlike[0]!r} is another task than the one of this name in tasks; rename one")
    for base in suite.bases:
        for name, task in tasks:
            for row in suite.rows():
                if row.bases is not None and label_of(base) not in row.bases:
                    continue
                for size in (row.sizes or suite.sizes) if row.fits_rows else [None]:
                    found.append(_cell(suite, base, name, task, tests, row, size))
    return found


def _named(task: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    loaded = Task.load(task)
    return loaded.name, resolved_task(loaded)


def _cell(
    suite: SuiteSpec,
    base: BaseSpec,
    name: str,
    task: dict[str, Any],
    tests: list[tuple[str, dict[str, Any]]],
    row: ContenderSpec,
    size: int | None,
) -> Cell:
    largest = max(size for one in suite.rows() for size in (one.sizes or suite.sizes))
    held = base.model_dump(mode="json", exclude_defaults=True) | {"name": base.name}
    train = {**suite.train.model_dump(mode="json", exclude_unset=True), **row.train}
    train.pop("lr", None)
    values: dict[str, Any] = {
        "base": held,
        "task": task,
        "tests": tuple(spec for other, spec in tests if other != name),
        "train": train,
        "dev": dev_rows(suite, size or largest, row),
        "test": suite.test,
        "draws": suite.draws,
        "pool": largest,
        "dev_pool": dev_rows(suite, largest),
    }
    what = row.model_dump(mode="json", include={"kind", "method"}) | {"demonstrations": row.demonstrations or 0}
    files = _files([task, *(spec for _, spec in tests)])
    what |= {"files": files} if files else {}
    what |= {"folds": len(suite.seeds)} if suite.draws == "folds" else {}
    what |= later_defaults(row, train)
    what |= {"cache": suite.cache.dtype} if suite.cache.dtype else {}  # the rest of it changes no result
    by_words = row.kind == "method" and row.method["name"] != "probe" and not row.method.get("head")
    named = values | {
        "task": _with_first_keys(task, by_words),
        "tests": tuple(_with_first_keys(test, by_words) for test in values["tests"]),
        "train": with_first_keys(TrainSpec, train),
    }
    held_place = Place(
        base=label_of(base),
        task=name,
        contender=row.name,
        size=size,
        family=row.family,
        factors=row.factors,
    )
    return Cell(
        suite=suite.name,
        place=held_place,
        contender=row,
        rates=rates_of(row, suite.search, task),
        seeds=tuple(seeds_of(row, suite)),
        search=suite.search,
        settings=digest_of([named, what, size, held_place.model_dump()])[:16],
        **values,
    )


def _with_first_keys(task: dict[str, Any], by_words: bool) -> dict[str, Any]:
    """A task as digests know it.

    Args:
        by_words: the base's words answer, so what the task leaves to the version is settled.
    """
    loaded = Task.load(task)
    settled = loaded.settled().spec
    if by_words and settled != loaded.spec:
        task = settled.model_dump(mode="json", exclude_none=True) | {"data": task["data"]}
    return with_first_keys(type(loaded.spec), task)


def _files(tasks: list[dict[str, Any]]) -> list[str]:
    """Digests of the files that rows come from, as they are now: other rows under the same name are another suite."""
    names = {str(task["data"].get(key) or "") for task in tasks for key in ("source", "train", "dev", "test")}
    paths = [path for path in map(Path, sorted(names)) if path.is_absolute() and path.is_file()]
    return [_digest_of(path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths]


@functools.lru_cache(maxsize=64)
def _digest_of(path: Path, changed: int, size: int) -> str:
    return sha256_file(path)


def dev_rows(suite: SuiteSpec, size: int, row: ContenderSpec | None = None) -> int:
    """Rows to choose by, for this many training rows; of folds they are among these, so at most a quarter of them."""
    if suite.draws == "folds":
        chooses = row is not None and row.default_lr is not None
        asked = suite.dev if isinstance(suite.dev, int) else max(LEAST_DEV, round(suite.dev * size))
        return min(asked, size // 4) if chooses else 0
    return suite.dev if isinstance(suite.dev, int) else max(LEAST_DEV, round(suite.dev * size))


def seeds_of(row: ContenderSpec, suite: SuiteSpec) -> list[int]:
    """The seeds that are reported; the first one only where nothing depends on it."""
    seeds = row.seeds or suite.seeds
    return seeds if row.fits_rows or row.demonstrations or suite.draws == "folds" else seeds[:1]


def runs_of(cell: Cell, records: Mapping[str, Record]) -> list[Run]:
    """The cell's runs as far as they are known: those of a search up to its first unfinished round, then the reported ones.

    Args:
        records: by id, failed ones included: they are out of the search.
    """
    rates, search = list(cell.rates), cell.search
    found: list[Run] = []
    if len(rates) > 1:
        for number, share in enumerate(search.shares):
            trials = [Run(cell, "trial", search.seed, rate, share, number) for rate in rates]
            found += trials
            if any(run.id not in records for run in trials):
                return found
            if not (ranked := ranking([records[run.id] for run in trials])):
                return found
            rates = [record.lr for record in ranked[: search.kept(len(trials))] if record.lr is not None]
    return [*found, *(Run(cell, "final", seed, rates[0] if rates else None) for seed in cell.seeds)]


def next_runs(cell: Cell, records: Mapping[str, Record]) -> list[Run]:
    """The runs of a cell that can start now and are not there; empty when it is done, or cannot go on."""
    return [run for run in runs_of(cell, records) if run.id not in records]


def left(cell: Cell, records: Mapping[str, Record]) -> int:
    """How many runs the cell still has to make, if all go well."""
    known = runs_of(cell, records)
    there = sum(run.id in records for run in known)
    return count(cell) - there if there < len(known) else 0


def ranking(trials: list[Record]) -> list[Record]:
    """Trials that ended well, the best by dev first, each chosen from what is left as a run chooses its best dev evaluation."""
    evaluations = []
    for record in trials:
        if record.status == "done" and (dev := record.dev) is not None:
            error = (dev.interval[1] - dev.interval[0]) / 4
            evaluations.append({"value": dev.value, "error": error, "nll": dev.nll or 0.0, "record": record})
    ranked = []
    while evaluations:
        best = best_of(evaluations)
        evaluations.remove(best)
        ranked.append(best["record"])
    return ranked


def count(cell: Cell) -> int:
    """How many runs the cell will have, if all go well."""
    trials, left = 0, len(cell.rates)
    if left > 1:
        for _ in cell.search.shares:
            trials, left = trials + left, cell.search.kept(left)
    return trials + len(cell.seeds)
