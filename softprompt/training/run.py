"""One run from rows to artifact: the way of the data, in order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from .. import doctor
from ..base import Base
from ..config import parse
from ..data import Row
from ..doctor import Finding
from ..doctor.trained import above_majority
from ..errors import ConfigError, DataError
from ..evaluate import Evaluation, evaluate
from ..methods import Method, make_method
from ..methods.headed import with_head
from ..parallel import Processes, alike, processes
from ..storage import digest_of
from ..tasks import Task
from ..types import Example, Notice, Progress, ignore_notice, ignore_progress
from .checkpoints import FolderStore, NoStore
from .choosing import settle
from .loop import State, Store, Teaching, fit
from .preparing import Prepared, prepare
from .saving import keep, settings_of
from .sharding import refuse
from .spec import CacheSpec, TrainSpec


@dataclass
class Result:
    """What a run gives.

    Attributes:
        metrics: by split (`dev`, and `test` if it was asked for).
        artifact: the folder, if `out` was given.
        seconds: `encode`, `train` and `evaluate`.
        parameters: trained numbers.
        truncated: rows whose text was cut to fit.
        findings: of the checks before and after training.
    """

    prepared: Prepared
    metrics: dict[str, Evaluation]
    artifact: Path | None
    seconds: dict[str, float]
    parameters: int
    best_step: int
    truncated: int
    events: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@alike
def train(
    base: Base,
    task: Task,
    method: str | dict[str, Any] | Method,
    out: str | Path | None = None,
    *,
    train: TrainSpec | dict[str, Any] | None = None,
    cache: CacheSpec | None = None,
    seed: int = 0,
    test: bool = False,
    fresh: bool = False,
    rows: dict[str, list[Row]] | None = None,
    share: Sequence[Prepared] = (),
    teaching: Teaching | None = None,
    progress: Progress = ignore_progress,
    check: bool = True,
    notice: Notice = ignore_notice,
) -> Result:
    """Train a method on a task and save the artifact.

    Args:
        method: a name (`soft`), a mapping with its settings, or a `Method`.
        out: folder of the run: checkpoint, event log, `artifact/`. A run that was cut short goes on from it. None keeps
            everything in memory.
        test: also evaluate on the test rows, once, at the end.
        fresh: start over even if `out` holds a checkpoint.
        rows, share: see `prepare`.
        teaching: learn from a teacher instead of labels (see `distil.py`).
        check: look first whether the method acts and can learn (`doctor.QUICK`); errors stop the run.
        notice: told what the checks warn of, at once; it is in the event log and in `Result.findings` as well.

    Started by `torchrun` or `accelerate launch`, each process calls it alike and gets the same result; the first one writes.

    Raises:
        SoftpromptError: bad settings, rows, base, a loss that is not finite, or what the check before training found.
    """
    method = with_head(method if isinstance(method, Method) else make_method(method), base, task)
    spec = train if isinstance(train, TrainSpec) else parse(TrainSpec, train or {}, "train")
    began, parallel = time.perf_counter(), processes()
    refuse(method, base, spec, parallel)
    progress = progress if parallel.main else ignore_progress
    notice = notice if parallel.main else ignore_notice
    wanted = ("train", "dev", "test") if test else ("train", "dev")
    task = settle(base, task, rows, cache, progress, notice, parallel)
    base = base.view(recompute=spec.checkpointing, autocast=torch.bfloat16 if spec.autocast else None)
    ready = prepare(base, task, method, cache, rows, share, wanted, parallel, seed)
    spec = spec.filled(method, len(ready.splits["train"]))
    folder = Path(out) if out is not None else None
    store, settings = _begin(ready, task, spec, seed, folder if parallel.main else None, fresh, teaching)
    findings = _examine(ready, store, notice) if check and parallel.from_main(store.load() is None) else []
    if method.parameters():
        kept = [*parallel.share(ready.splits["train"]), *parallel.share(ready.splits.get("dev", []))]
        ready.engine.encode(kept, progress)
    seconds, began = {"encode": time.perf_counter() - began}, time.perf_counter()
    best_step, seen = _learn(ready, spec, seed, store, teaching, parallel, progress)
    seconds["train"], began = time.perf_counter() - began, time.perf_counter()
    metrics = _measure(ready, wanted[1:], {"dev": seen}, store, teaching, parallel, progress)
    seconds["evaluate"] = time.perf_counter() - began
    if check and "dev" in metrics:
        findings += _tell([above_majority(ready.task, ready.splits["dev"], metrics["dev"].estimate)], notice)
    size = sum(value.numel() for value in method.parameters() or method.export().values())
    result = Result(ready, metrics, None, seconds, size, best_step, ready.bound.cut, findings=findings)
    if isinstance(store, NoStore):
        result.events = store.events
    if folder is not None:
        result.artifact = folder / "artifact"
        if parallel.main:
            keep(result, folder, task, spec, cache or CacheSpec(), settings)
    parallel.wait()
    return result


def _begin(
    ready: Prepared,
    task: Task,
    spec: TrainSpec,
    seed: int,
    folder: Path | None,
    fresh: bool,
    teaching: Teaching | None,
) -> tuple[Store, dict[str, Any]]:
    """Where the run leaves its records, with the first of them, and all that decides its result.

    Raises:
        DataError: rows that cannot be trained on.
        TrainingError: the folder holds a checkpoint of another run.
    """
    trains = bool(ready.method.parameters())
    if trains:
        _refuse_unusable(ready.splits["train"])
    settings = settings_of(ready, spec if trains else None, seed)
    if teaching is not None:
        settings["teaching"] = teaching.record
    store = _store(folder, settings, fresh)
    store.log(
        "start",
        plan=ready.engine.plan.explain(),
        rows={name: len(part) for name, part in ready.splits.items()},
        truncated=ready.bound.cut,
        duplicates=asdict(task.left_out),
        method=ready.method.spec.model_dump(mode="json"),
    )
    return store, settings


def _examine(ready: Prepared, store: Store, notice: Notice) -> list[Finding]:
    """The quick checks; what they warn of is recorded and told.

    Raises:
        TrainingError: an error among them.
    """
    found = doctor.before_training(ready)
    for finding in found:
        if finding.level in ("warning", "error"):
            store.log("doctor", **finding.as_dict())
    _tell(found, notice)
    doctor.refuse(found)
    return found


def _tell(findings: list[Finding], notice: Notice) -> list[Finding]:
    for finding in findings:
        if finding.level == "warning":
            notice(f"warning: {finding}")
    return findings


def _learn(
    ready: Prepared,
    spec: TrainSpec,
    seed: int,
    store: Store,
    teaching: Teaching | None,
    parallel: Processes,
    progress: Progress,
) -> tuple[int, Evaluation | None]:
    """Train by gradients, or solve; the step that was kept, and what its look at dev found."""
    method, train_rows, dev = ready.method, ready.splits["train"], ready.splits.get("dev", [])
    if method.parameters():
        objective = None if teaching is None else teaching.objective(ready.engine)
        state = fit(
            ready.engine, method, ready.bound, train_rows, dev, spec, seed, store, progress, objective, parallel
        )
        best = int(state.best.get("step", state.step))
        return best, state.found.get(best)
    method.solve(ready.engine, train_rows, dev, ready.task, seed, progress)
    store.save(State(ended="solved"))
    return 0, None


def _measure(
    ready: Prepared,
    splits: Sequence[str],
    seen: dict[str, Evaluation | None],
    store: Store,
    teaching: Teaching | None,
    parallel: Processes,
    progress: Progress,
) -> dict[str, Evaluation]:
    """The task's metric on these splits, where they have rows; what a look has `seen` is not asked again."""
    metrics: dict[str, Evaluation] = {}
    for name in splits:
        if ready.splits.get(name):
            found = seen.get(name) or evaluate(
                ready.engine, ready.method, ready.bound, ready.splits[name], progress, parallel
            )
            if teaching is not None:
                found = replace(found, estimate=replace(found.estimate, metric=teaching.metric))
            metrics[name] = found
            store.log("final", split=name, **found.estimate.as_dict())
    return metrics


def _refuse_unusable(rows: Sequence[Example]) -> None:
    if not rows:
        raise DataError("there are no training rows; set data.split.train or give data.train")
    problems = [f"{row.where}: {_lacking(row)}" for row in rows if row.gold is None]
    problems += [f"{row.where}: the text is empty" for row in rows if not row.text]
    if problems:
        raise DataError(f"{len(problems)} of {len(rows)} training rows cannot be used", problems)


def _lacking(row: Example) -> str:
    if row.windows:
        return "no window holds the whole of a right answer; raise task.window_overlap or leave the row out"
    return "the row has no label"


def _store(folder: Path | None, settings: dict[str, Any], fresh: bool) -> Store:
    if folder is None:
        return NoStore()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; --out must name a folder")
    if fresh:
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    return FolderStore(folder, digest_of(settings))
