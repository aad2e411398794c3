"""Many runs on one base and one encoding: what is frozen is computed for the first and used by all."""

from __future__ import annotations

import itertools
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..answers import Evaluation
from ..base import Base
from ..data import Row
from ..errors import ConfigError
from ..interrupts import explained
from ..methods import make_method
from ..metrics import Estimate
from ..parallel import fail_together, processes
from ..prepared import Prepared
from ..run_reader import load_run
from ..runfile import BaseSpec, RunSpec
from ..storage import write_json
from ..tasks import Task
from ..trackers import check_installed
from ..types import Notice, Progress, ignore_notice, ignore_progress
from .keeping import best_of
from .places import check_run_folders, earlier_report, work_folder
from .result import Result
from .run import train
from .saving import starts

REPORT = "sweep.json"


def combinations(settings: list[str]) -> list[list[str]]:
    """`["a=1,2", "b=3"]` → `[["a=1", "b=3"], ["a=2", "b=3"]]`; values in brackets are left whole.

    Raises:
        ConfigError: a setting without `=`.
    """
    choices = []
    for item in settings:
        key, sign, values = item.partition("=")
        if not sign:
            raise ConfigError(f"{item!r}: expected key=value or key=a,b,c")
        parts = [values] if values[:1] in "[{\"'" else values.split(",")
        choices.append([f"{key}={value}" for value in parts])
    return [list(choice) for choice in itertools.product(*choices)]


@fail_together
def sweep(
    run: Path,
    settings: list[str],
    to: Path,
    test: bool = False,
    progress: Progress = ignore_progress,
    notice: Notice = ignore_notice,
) -> dict[str, Any]:
    """Train every combination; choose by dev; evaluate the chosen one on test if asked.

    Returns:
        {"trials": [{"name", "dev", "dev_nll", "best_step", "truncated", "seconds"}], "best", "seconds", "encode_seconds",
        "test", "earlier"}, also written to `sweep.json`. The best trial is chosen as a run chooses its best dev evaluation
        (`best_of`). "test" is the best trial's, if it was ever asked for; "earlier" are trials of earlier calls that are not in
        this one.

    Raises:
        SoftpromptError: a combination that cannot be run, said before the first is; see `train`.
    """
    began = time.perf_counter()
    everything = combinations(settings)
    names = [_name_of(choice, settings, everything) for choice in everything]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(
            f"two trials would be called {twice!r}; give each value once, and values that differ in letters or digits"
        )
    specs = [load_run(run, choice, whole=True) for choice in everything]
    context = _SweepContext(progress, notice)
    with work_folder(to, [REPORT]), explained(lambda: "the same command goes on with the trials that are left"):
        check_run_folders([to / name for name in names])
        for spec in specs:  # before a base is loaded
            starts(make_method(spec.method).spec.model_dump())
            check_installed(spec.train.trackers)
            if not context.read(Task.load(spec.task)).get("dev"):
                raise ConfigError("a sweep chooses by dev; set data.split.dev or give data.dev")
        trials = [
            context.trial(name, spec, to / name, _named(progress, f"{place}/{len(names)} {name}"))
            for place, (name, spec) in enumerate(zip(names, specs, strict=True), 1)
        ]
        best = best_of([trial.compared() for trial in trials])["trial"]
        if test:
            best = context.trial(best.name, specs[names.index(best.name)], to / best.name, progress, test=True)
        report: dict[str, Any] = {
            "trials": [trial.as_dict() for trial in trials],
            "best": best.name,
            "encode_seconds": sum(trial.result.seconds["encode"] for trial in trials),
        }
        if (tested := best.tested()) is not None:
            report["test"] = tested.as_dict()
        before = earlier_report(to / REPORT)
        others = [*before.get("earlier", []), *before.get("trials", [])]
        if earlier := [trial for trial in others if trial.get("name") not in names]:
            report["earlier"] = earlier
        report["seconds"] = time.perf_counter() - began
        if processes().main:
            write_json(to / REPORT, report)
    return report


@dataclass(frozen=True)
class Trial:
    """One run of a sweep: its result, and its metric on dev."""

    name: str
    result: Result
    dev: Evaluation

    def tested(self) -> Estimate | None:
        """Its metric on test, of this call or an earlier one."""
        found = self.result.metrics.get("test")
        return found.estimate if found is not None else self.result.recorded.get("test")

    def compared(self) -> dict[str, Any]:
        """As `best_of` compares dev evaluations."""
        estimate = self.dev.estimate
        return {"value": estimate.value, "error": estimate.error, "nll": self.dev.nll, "trial": self}

    def as_dict(self) -> dict[str, Any]:
        """As written to `sweep.json`."""
        result = self.result
        return {
            "name": self.name,
            "dev": self.dev.estimate.as_dict(),
            "dev_nll": self.dev.nll,
            "best_step": result.best_step,
            "truncated": result.truncated,
            "seconds": result.seconds,
        }


class _SweepContext:
    """Holds what trials share: the base, the rows that were read, the texts that were encoded."""

    def __init__(self, progress: Progress, notice: Notice) -> None:
        self.progress, self.notice = progress, notice
        self._base: tuple[BaseSpec, Base] | None = None
        self._shared: list[Prepared] = []
        self._rows: dict[str, tuple[dict[str, list[Row]], Task]] = {}

    def trial(self, name: str, spec: RunSpec, folder: Path, progress: Progress, test: bool = False) -> Trial:
        """Train one combination, whose rows have a dev split."""
        task = Task.load(spec.task)
        rows = self.read(task)
        if self._base is None or self._base[0] != spec.base:
            self._base, self._shared = (spec.base, spec.base.load(self.progress)), []
        result = train(
            self._base[1],
            task,
            make_method(spec.method),
            folder,
            train=spec.train,
            cache=spec.cache,
            seed=spec.seed,
            rows=rows,
            reuse=self._shared,
            progress=progress,
            test=test,
            notice=self.notice,
        )
        self._shared = [result.prepared]
        return Trial(name, result, result.metrics["dev"])

    def read(self, task: Task) -> dict[str, list[Row]]:
        """The task's rows; those of a task that differs in its texts only are read once.

        Raises:
            DataError: rows that cannot be used.
        """
        settings = task.spec.model_dump(exclude={"name", "template"})
        key = str((task.folder.resolve(), settings, sorted(task.spec.template.fields)))
        if key not in self._rows:
            self._rows[key] = processes().first(task.load_data, self.progress), task
            for line in task.notices:
                self.notice(line)
        rows, read = self._rows[key]
        task.left_out, task.notices = read.left_out, read.notices
        return rows


def _name_of(choice: list[str], settings: list[str], everything: list[list[str]]) -> str:
    """What sets a trial apart: the settings that were given several values."""
    varied = {item.partition("=")[0] for item in settings if not all(item in other for other in everything)}
    return "_".join(_short(item) for item in choice if not varied or item.partition("=")[0] in varied) or "run"


def _short(setting: str) -> str:
    """`train.lr=0.01` → `lr=0.01`, fit for a folder's name."""
    key, _, value = setting.partition("=")
    return re.sub(r"[^\w.=+-]+", "-", f"{key.rpartition('.')[2]}={value}")


def _named(progress: Progress, name: str) -> Progress:
    def tell(what: str, done: int, total: int) -> None:
        progress(f"{name}: {what}", done, total)

    return tell
