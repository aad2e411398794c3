"""Many runs on one base and one encoding: what is frozen is computed for the first and used by all."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path
from typing import Any

from ..base import Base
from ..engine import Engine
from ..errors import ConfigError
from ..evaluate import evaluate
from ..methods import make_method
from ..storage import write_json
from ..tasks import Task
from ..types import Progress, ignore_progress
from .run import save_run_file, train
from .spec import load_run


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


def sweep(
    run: Path, settings: list[str], to: Path, test: bool = False, progress: Progress = ignore_progress
) -> dict[str, Any]:
    """Train every combination; choose by dev; evaluate the chosen one on test if asked.

    Returns:
        {"trials": [{"name", "dev", "best_step", "seconds"}], "best", "seconds", "encode_seconds", "test"}, also written
        to `sweep.json`.
    """
    began = time.perf_counter()
    base: Base | None = None
    engine: Engine | None = None
    trials: list[dict[str, Any]] = []
    best: tuple[float, float, str] | None = None
    kept: Any = None
    data: dict[str, Any] = {}
    everything = combinations(settings)
    varied = [
        item.partition("=")[0] for item in settings if sum(item in choice for choice in everything) < len(everything)
    ]
    for place, choice in enumerate(everything):
        spec = load_run(run, choice)
        name = "_".join(_short(item) for item in choice if not varied or item.partition("=")[0] in varied) or "run"
        task = Task.load(spec.task)
        key = str((task.spec.data, task.spec.template.fields))
        if key not in data:
            data = {key: task.load_data()}
        if base is None or (base.name, base.label_of_dtype) != (spec.base.name, spec.base.dtype):
            base, engine = Base.load(spec.base.name, spec.base.dtype, spec.base.device), None
        tell = _named(progress, f"{place + 1}/{len(everything)} {name}")
        method = make_method(spec.method)
        result = train(
            base,
            task,
            method,
            to / name,
            train=spec.train,
            cache=spec.cache,
            seed=spec.seed,
            rows=data[key],
            share=engine,
            progress=tell,
        )
        save_run_file(to / name, spec)
        engine = result.prepared.engine
        dev = result.metrics.get("dev")
        if dev is None:
            raise ConfigError("a sweep chooses by dev; set data.split.dev or give data.dev")
        trials.append(
            {"name": name, "dev": dev.estimate.as_dict(), "best_step": result.best_step, "seconds": result.seconds}
        )
        rank = (dev.estimate.value, -dev.nll, name)
        if best is None or rank[:2] > best[:2]:
            best, kept = rank, result
    assert best is not None
    report: dict[str, Any] = {
        "trials": trials,
        "best": best[2],
        "encode_seconds": sum(trial["seconds"]["encode"] for trial in trials),
    }
    if test and kept.prepared.splits.get("test"):
        ready = kept.prepared
        found = evaluate(ready.engine, ready.method, ready.bound, ready.splits["test"], progress)
        report["test"] = found.estimate.as_dict()
    report["seconds"] = time.perf_counter() - began
    write_json(to / "sweep.json", report)
    return report


def _short(setting: str) -> str:
    """`train.lr=0.01` → `lr=0.01`, fit for a folder's name."""
    key, _, value = setting.partition("=")
    return re.sub(r"[^\w.=+-]+", "-", f"{key.rpartition('.')[2]}={value}")


def _named(progress: Progress, name: str) -> Progress:
    def tell(what: str, done: int, total: int) -> None:
        progress(f"{name}: {what}", done, total)

    return tell
