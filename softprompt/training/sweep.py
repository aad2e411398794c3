"""Many runs on one base and one encoding: what is frozen is computed for the first and used by all."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path
from typing import Any

from ..base import Base
from ..data import Row
from ..errors import ConfigError
from ..evaluate import evaluate
from ..methods import make_method
from ..parallel import alike, processes
from ..storage import write_json
from ..tasks import Task
from ..types import Progress, ignore_progress
from .loop import best_of
from .run import Prepared, train
from .spec import BaseSpec, load_run


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


@alike
def sweep(
    run: Path, settings: list[str], to: Path, test: bool = False, progress: Progress = ignore_progress
) -> dict[str, Any]:
    """Train every combination; choose by dev; evaluate the chosen one on test if asked.

    Returns:
        {"trials": [{"name", "dev", "dev_nll", "best_step", "truncated", "seconds"}], "best", "seconds", "encode_seconds",
        "test"}, also written to `sweep.json`. The best trial is chosen as a run chooses its best look (`best_of`).
    """
    began, parallel = time.perf_counter(), processes()
    everything = combinations(settings)
    trials: list[dict[str, Any]] = []
    tried: list[dict[str, Any]] = []
    base: Base | None = None
    held: BaseSpec | None = None
    shared: Prepared | None = None
    data: dict[str, dict[str, list[Row]]] = {}
    for place, choice in enumerate(everything):
        spec, name = load_run(run, choice), _name_of(choice, settings, everything)
        task = Task.load(spec.task)
        key = str((task.folder.resolve(), task.spec.data, sorted(task.spec.template.fields)))
        if key not in data:
            data[key] = parallel.first(task.load_data, progress)
        rows = data[key]
        if base is None or held != spec.base:
            base, held, shared = spec.base.load(progress), spec.base, None
        result = train(
            base,
            task,
            make_method(spec.method),
            to / name,
            train=spec.train,
            cache=spec.cache,
            seed=spec.seed,
            rows=rows,
            share=shared,
            progress=_named(progress, f"{place + 1}/{len(everything)} {name}"),
        )
        shared = result.prepared
        dev = result.metrics.get("dev")
        if dev is None:
            raise ConfigError("a sweep chooses by dev; set data.split.dev or give data.dev")
        seconds, found = result.seconds, dev.estimate.as_dict()
        trials.append(
            {
                "name": name,
                "dev": found,
                "dev_nll": dev.nll,
                "best_step": result.best_step,
                "truncated": result.truncated,
                "seconds": seconds,
            }
        )
        tried.append(
            {
                "value": dev.estimate.value,
                "error": dev.estimate.error,
                "nll": dev.nll,
                "name": name,
                "prepared": result.prepared,
                "test": rows.get("test", []),
            }
        )
    best = best_of(tried)
    encoding = sum(trial["seconds"]["encode"] for trial in trials)
    report: dict[str, Any] = {"trials": trials, "best": best["name"], "encode_seconds": encoding}
    if test:
        ready = best["prepared"]
        held_out = evaluate(
            ready.engine, ready.method, ready.bound, ready.bound.examples(best["test"]), progress, parallel
        ).estimate
        report["test"] = held_out.as_dict()
    report["seconds"] = time.perf_counter() - began
    if parallel.main:
        write_json(to / "sweep.json", report)
    return report


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
