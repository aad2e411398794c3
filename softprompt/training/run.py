"""One run from rows to artifact: the way of the data, in order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from .. import doctor
from ..base import Base
from ..config import parse
from ..data import Row, few_shot
from ..doctor import Finding
from ..doctor.trained import above_majority
from ..engine import SLOTS, CacheConfig, Engine, Plan, plan
from ..errors import ConfigError, DataError
from ..evaluate import Evaluation, evaluate
from ..methods import Method, make_method
from ..storage import digest_of
from ..tasks import BoundTask, Task
from ..types import Example, Notice, Progress, ignore_notice, ignore_progress
from .checkpoints import FolderStore, NoStore
from .loop import State, Store, fit
from .saving import keep, settings_of
from .spec import CacheSpec, TrainSpec


@dataclass
class Prepared:
    """Everything that a run needs, bound together; several runs may share one (and its encoded rows).

    Attributes:
        splits: examples by split, `train` without its demonstrations.
        digest: of all rows and how they are split.
    """

    base: Base
    task: Task
    method: Method
    bound: BoundTask
    engine: Engine
    splits: dict[str, list[Example]]
    digest: str


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


def prepare(
    base: Base,
    task: Task,
    method: Method,
    cache: CacheSpec | None = None,
    rows: dict[str, list[Row]] | None = None,
    share: Prepared | None = None,
    splits: Sequence[str] = ("train", "dev", "test"),
) -> Prepared:
    """Draw demonstrations, bind task and method to the base, turn rows into examples.

    Args:
        rows: splits that were loaded already (default: the task's own data).
        share: an earlier run; what it has encoded and tokenized is used again where base, rows, task and plan are the same.
        splits: which of them become examples.

    Raises:
        ConfigError, DataError: see `Task.load_data`, `Method.segments`.
    """
    rows = rows if rows is not None else task.load_data()
    task, train_rows = _draw_demonstrations(task, rows.get("train", []))
    bound = task.bind(base.tokenizer, base.max_positions - method.positions, method.keeps_instruction)
    how = plan(method.segments(SLOTS, len(bound.cue)), method.first_layer)
    digest = digest_of({name: [row.values for row in part] for name, part in rows.items()})
    kept = (cache or CacheSpec()).config()
    if share is not None and _same(share, base, how, bound, kept):
        engine = share.engine
        there = all(name in share.splits for name in splits if name in rows)
        if there and (share.digest, share.task.spec, share.bound.room) == (digest, task.spec, bound.room):
            bound.cut = share.bound.cut
            return Prepared(base, task, method, bound, engine, share.splits, digest)
    else:
        engine = Engine(base, how, bound.head, bound.cue, kept)
    parts = {name: train_rows if name == "train" else rows[name] for name in splits if name in rows}
    return Prepared(
        base, task, method, bound, engine, {name: bound.examples(part) for name, part in parts.items()}, digest
    )


def _same(share: Prepared, base: Base, how: Plan, bound: BoundTask, cache: CacheConfig) -> bool:
    """Whether rows that were encoded there are the rows that would be encoded here."""
    there = share.engine
    mine = (how, bound.head, bound.cue, cache)
    return share.base.same(base) and (there.plan, there.head, there.cue, there.config) == mine


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
    share: Prepared | None = None,
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
        check: look first whether the method acts and can learn (`doctor.QUICK`); errors stop the run.
        notice: told what the checks warn of, at once; it is in the event log and in `Result.findings` as well.

    Raises:
        SoftpromptError: bad settings, rows, base, a loss that is not finite, or what the check before training found.
    """
    method = method if isinstance(method, Method) else make_method(method)
    spec = train if isinstance(train, TrainSpec) else parse(TrainSpec, train or {}, "train")
    began = time.perf_counter()
    wanted = ("train", "dev", "test") if test else ("train", "dev")
    base = base.view(recompute=spec.checkpointing, autocast=torch.bfloat16 if spec.autocast else None)
    ready = prepare(base, task, method, cache, rows, share, wanted)
    method.attach(base, ready.bound, seed)
    spec = spec.filled(method, len(ready.splits["train"]))
    folder = Path(out) if out is not None else None
    store, settings = _begin(ready, task, spec, seed, folder, fresh)
    findings = _examine(ready, store, notice) if check and store.load() is None else []
    if method.parameters():
        ready.engine.encode([*ready.splits["train"], *ready.splits.get("dev", [])], progress)
    seconds, began = {"encode": time.perf_counter() - began}, time.perf_counter()
    best_step = _learn(ready, spec, seed, store, progress)
    seconds["train"], began = time.perf_counter() - began, time.perf_counter()
    metrics = _measure(ready, wanted[1:], store, progress)
    seconds["evaluate"] = time.perf_counter() - began
    if check and "dev" in metrics:
        findings += _tell([above_majority(ready.task, ready.splits["dev"], metrics["dev"].estimate)], notice)
    size = sum(value.numel() for value in method.parameters() or method.export().values())
    result = Result(ready, metrics, None, seconds, size, best_step, ready.bound.cut, findings=findings)
    if isinstance(store, NoStore):
        result.events = store.events
    if folder is not None:
        keep(result, folder, task, spec, cache or CacheSpec(), settings)
    return result


def _begin(
    ready: Prepared, task: Task, spec: TrainSpec, seed: int, folder: Path | None, fresh: bool
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


def _learn(ready: Prepared, spec: TrainSpec, seed: int, store: Store, progress: Progress) -> int:
    """Train by gradients, or solve; the step that was kept."""
    method, train_rows, dev = ready.method, ready.splits["train"], ready.splits.get("dev", [])
    if method.parameters():
        state = fit(ready.engine, method, ready.bound, train_rows, dev, spec, seed, store, progress)
        return int(state.best.get("step", state.step))
    method.solve(ready.engine, train_rows, dev, ready.task, seed, progress)
    store.save(State(ended="solved"))
    return 0


def _measure(ready: Prepared, splits: Sequence[str], store: Store, progress: Progress) -> dict[str, Evaluation]:
    """The task's metric on these splits, where they have rows."""
    metrics: dict[str, Evaluation] = {}
    for name in splits:
        if ready.splits.get(name):
            metrics[name] = evaluate(ready.engine, ready.method, ready.bound, ready.splits[name], progress)
            store.log("final", split=name, **metrics[name].estimate.as_dict())
    return metrics


def _draw_demonstrations(task: Task, train_rows: Sequence[Row]) -> tuple[Task, list[Row]]:
    wanted = task.spec.demonstrations
    if not wanted.k or wanted.rows:
        return task, list(train_rows)
    shots = few_shot(list(train_rows), wanted.k, task.label, wanted.seed)
    chosen = {id(row) for row in shots}
    return task.with_demonstrations(shots), [row for row in train_rows if id(row) not in chosen]


def _refuse_unusable(rows: Sequence[Example]) -> None:
    if not rows:
        raise DataError("there are no training rows; set data.split.train or give data.train")
    problems = [f"{row.where}: the row has no label" for row in rows if row.gold is None]
    problems += [f"{row.where}: the text is empty" for row in rows if not row.text]
    if problems:
        raise DataError(f"{len(problems)} of {len(rows)} training rows cannot be used", problems)


def _store(folder: Path | None, settings: dict[str, Any], fresh: bool) -> Store:
    if folder is None:
        return NoStore()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; --out must name a folder")
    if fresh:
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    return FolderStore(folder, digest_of(settings))
