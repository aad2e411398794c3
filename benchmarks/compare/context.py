"""Where runs are made: one process's base, rows and encodings, shared by all of its runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from softprompt.base import Base
from softprompt.base.memory import give_back_freed_memory
from softprompt.benchmarks.compare.runs import Cell, Run
from softprompt.config import parse
from softprompt.control import Control
from softprompt.data import Row, normalize, split
from softprompt.errors import ConfigError, DataError
from softprompt.methods import Headed, Method, make_method
from softprompt.prepared import Prepared, with_head
from softprompt.runfile import BaseSpec, CacheSpec
from softprompt.storage import digest_of
from softprompt.tasks import Task
from softprompt.training.choosing import resolve_scoring
from softprompt.types import Progress, ignore_progress


class RunContext:
    """Holds what runs share: the base, the rows that were read, what was encoded. One base and task at a time.

    Args:
        cache: where encoded rows are kept.
    """

    def __init__(self, cache: CacheSpec, progress: Progress = ignore_progress) -> None:
        self.cache, self.progress = cache, progress
        self._base: tuple[str, Base] | None = None
        self._rows: dict[str, dict[str, list[Row]]] = {}
        self._others: dict[str, list[Row]] = {}
        self._resolved: dict[str, Task] = {}
        self._prepared: dict[str, Prepared] = {}
        self._key = ""

    def base(self, cell: Cell) -> Base:
        """The cell's base; another one than before takes the place of all that was kept with it."""
        key = digest_of(cell.base)
        if self._base is None or self._base[0] != key:
            self.clear()  # before the next one is loaded: two may not fit
            self._base = (key, parse(BaseSpec, cell.base, "base").load(self.progress))
        return self._base[1]

    def clear(self) -> None:
        """Give back the base and what was prepared with it."""
        self._base, self._key = None, ""
        self._resolved.clear()
        self._prepared.clear()
        give_back_freed_memory()

    def task(self, cell: Cell) -> Task:
        """The cell's task; how options are scored, if that is to be chosen, is chosen once, on the largest dev."""
        if (key := digest_of([cell.base, cell.task])) not in self._resolved:
            self._resolved[key] = resolve_scoring(
                self.base(cell),
                Task.load(cell.task),
                self.rows_of(cell),
                self.cache.config(),
                Control(self.progress),
            )
        return self._resolved[key]

    def asked(self, run: Run) -> Task:
        """The run's task, with as many demonstrations as its contender says, to be drawn by its seed; else the task's own."""
        task, count = self.task(run.cell), run.cell.contender.demonstrations
        if count is None:
            return task
        shots = task.spec.demonstrations.model_copy(update={"k": count, "seed": run.seed, "rows": []})
        return type(task)(task.spec.model_copy(update={"demonstrations": shots}), task.folder)

    def method(self, cell: Cell) -> Method:
        """The cell's method, before it has learned anything.

        Raises:
            ConfigError: one that learns nothing, on a base that answers by a trained head only.
        """
        method, base = make_method(cell.contender.method), self.base(cell)
        if not cell.contender.fits_rows and isinstance(with_head(method, base, self.task(cell)), Headed):
            raise ConfigError(f"base {base.name!r} has no words to answer with; without training it cannot be asked")
        return method

    def rows(self, run: Run) -> dict[str, list[Row]]:
        """Rows of a run: as many of `train` and `dev` as its size asks for, and `test`.

        Raises:
            DataError: fewer than that.
        """
        cell, pool = run.cell, self.rows_of(run.cell)
        task = Task.load(cell.task)
        if cell.draws == "folds":
            return self._fold(run, task, pool["test"])
        size = cell.place.size or cell.contender.demonstrations or cell.pool
        if size > len(pool["train"]):
            raise DataError(
                f"{cell.place.task}: {size} training rows asked for, there are {len(pool['train'])}; make sizes smaller"
            )
        # demonstrations are each seed's own
        only_shown = cell.place.size is None and cell.contender.demonstrations
        seed = run.seed if cell.draws == "seeded" or only_shown else task.spec.data.split.seed
        train = split(pool["train"], {"train": size}, task.label, seed, task.spec.data.split.group)["train"]
        if cell.dev > len(pool["dev"]):
            raise DataError(
                f"{cell.place.task}: {cell.dev} dev rows asked for, there are {len(pool['dev'])}; make dev smaller"
            )
        return {"train": train, "dev": pool["dev"][: cell.dev], "test": pool["test"]}

    def _fold(self, run: Run, task: Task, every: Sequence[Row]) -> dict[str, list[Row]]:
        """The rows of a run of a cross-validation: `test` is its fold, a smaller `train` the beginning of a larger one.

        Raises:
            DataError: fewer rows in the other folds than its size asks for.
        """
        cell, cut, folds = run.cell, task.spec.data.split, len(run.cell.seeds)
        parts = split(every, {str(place): 1 / folds for place in range(folds)}, task.label, cut.seed, cut.group)
        tested = parts.pop(
            str(run.seed if run.seed in cell.seeds else 0)
        )  # what a run costs is tried on the first fold
        others = [row for part in parts.values() for row in part]
        size = min(cell.place.size or cell.contender.demonstrations or cell.pool, len(others))
        if cell.place.size is not None and cell.place.size > len(others):
            raise DataError(
                f"{cell.place.task}: {cell.place.size} training rows asked for, the other folds of fold {run.seed} have "
                f"{len(others)}; make sizes smaller"
            )
        learned = split(others, {"train": size - cell.dev, "dev": cell.dev}, task.label, run.seed, cut.group)
        return {**learned, "test": tested}

    def rows_of(self, cell: Cell, other: dict[str, Any] | None = None) -> dict[str, list[Row]]:
        """All rows of the cell's task, split once: test, dev, and the pool that training rows are drawn from.

        Of a cross-validation each row is tested: they all are in `test`, and nothing is anywhere else.

        Args:
            other: another task, whose test rows are wanted.

        Raises:
            DataError: too few of them, or a task that does not say how many are for the test.
        """
        held, dev = (cell.task, cell.dev_pool) if other is None else (other, 0)
        key = digest_of([held, cell.test, dev])
        if key not in self._rows:
            task = Task.load(held)
            data, cut = task.spec.data, task.spec.data.split
            sizes: dict[str, Any] = {"train": None, "dev": dev}
            if cell.draws == "folds":
                sizes |= {"dev": 0, "test": 0}
            elif data.source is None:
                sizes["test"] = None  # a file of its own, of which a sample is drawn below
            elif cell.test is not None:
                sizes["test"] = cell.test
            elif cut.test is None and data.hold_out is None:
                raise DataError(f"{task.name}: gives all rows that are left to the test; set `test` in the suite")
            changed = data.model_copy(update={"split": cut.model_copy(update=sizes)})
            rows = type(task)(task.spec.model_copy(update={"data": changed}), task.folder).load_data(self.progress)
            if cell.draws == "folds":
                rows = {"train": [], "dev": [], "test": rows["train"]}
            if not rows.get("test"):
                raise DataError(
                    f"{task.name}: has no test rows; give data.test, or data.source and `test` in the suite"
                )
            if cell.test is not None and len(rows["test"]) > cell.test:
                rows["test"] = split(rows["test"], {"test": cell.test}, task.label, cut.seed)["test"]
            if (
                rows["dev"] and data.dev is not None
            ):  # in an order of its own, perhaps by label; the first rows of it will be taken
                rows["dev"] = split(rows["dev"], {"dev": len(rows["dev"])}, task.label, cut.seed)["dev"]
            self._rows[key] = rows
        return self._rows[key]

    def tests(self, run: Run, own: list[Row]) -> dict[str, list[Row]]:
        """Test rows by task, the run's own first; of other tasks those that no run can train on or choose by.

        Raises:
            DataError: rows of another task that this one cannot ask, or none that are left.
        """
        others = {str(data["name"]): self._asked(run.cell, data) for data in run.cell.tests}
        return {run.cell.place.task: own} | others

    def _asked(self, cell: Cell, data: dict[str, Any]) -> list[Row]:
        """Test rows of another task for this one."""
        key = digest_of([cell.task, data, cell.test, cell.dev_pool])
        if key not in self._others:
            task, pool, name = Task.load(cell.task), self.rows_of(cell), data["name"]
            rows = self.rows_of(cell, data)["test"]
            if problems := [f"{row.where}: {reason}" for row in rows if (reason := task.check_row(row.values))]:
                raise DataError(f"tests: {name}: {len(problems)} rows are none of {task.name}, the first {problems[0]}")
            seen = {normalize(task.content(row)) for part in ("train", "dev") for row in pool[part]}
            left = [row for row in rows if normalize(task.content(row)) not in seen]
            if not left:
                raise DataError(f"tests: {name}: all of its test rows are among those that {task.name} is trained on")
            self._others[key] = left
        return self._others[key]

    def check(self, cells: Sequence[Cell]) -> None:
        """Read the rows of all cells, before anything is loaded or trained.

        Raises:
            DataError: too few of them, or rows that cannot be used.
        """
        for key in {(str(cell.task), str(cell.tests), cell.place.size): cell for cell in cells}.values():
            run = Run(key, "final", key.seeds[0], None)
            self.tests(run, self.rows(run)["test"])

    def shared(self, cell: Cell) -> list[Prepared]:
        """What earlier runs on this base and task have prepared, the nearest first."""
        key = digest_of([cell.base, cell.task])
        if key != self._key:
            self._prepared.clear()  # encoded texts of other rows take memory only
            self._key = key
        nearest = [self._prepared[cell.contender.name]] if cell.contender.name in self._prepared else []
        return [*nearest, *(ready for name, ready in self._prepared.items() if name != cell.contender.name)]

    def keep(self, cell: Cell, ready: Prepared) -> None:
        """Keep what a run has prepared for the next, without what it has learned."""
        self._prepared[cell.contender.name] = dataclasses.replace(ready, method=make_method("hard"))
