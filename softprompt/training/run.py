"""One run from rows to artifact: the way of the data, in order."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from .. import artifact as artifacts
from ..artifact.card import model_card
from ..base import Base
from ..config import parse
from ..data import Row
from ..engine import SLOTS, CacheConfig, Engine, Plan, plan
from ..errors import ConfigError, DataError
from ..evaluate import Evaluation, evaluate
from ..methods import Method, make_method
from ..parallel import Processes, alike, processes
from ..storage import digest_of, write_json
from ..tasks import BoundTask, Task
from ..types import Example, Progress, ignore_progress
from .checkpoints import FolderStore, NoStore
from .loop import State, Store, Teaching, fit
from .spec import CacheSpec, TrainSpec, save_run_file

PACKAGES = ("softprompt", "torch", "transformers", "tokenizers", "numpy", "scikit-learn")


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
    """

    prepared: Prepared
    metrics: dict[str, Evaluation]
    artifact: Path | None
    seconds: dict[str, float]
    parameters: int
    best_step: int
    truncated: int
    events: list[dict[str, Any]] = field(default_factory=list)


def prepare(
    base: Base,
    task: Task,
    method: Method,
    cache: CacheSpec | None = None,
    rows: dict[str, list[Row]] | None = None,
    share: Prepared | None = None,
    splits: Sequence[str] = ("train", "dev", "test"),
    parallel: Processes | None = None,
) -> Prepared:
    """Draw demonstrations, bind task and method to the base, turn rows into examples.

    Args:
        rows: splits that were loaded already (default: the task's own data).
        share: an earlier run; what it has encoded and tokenized is used again where base, rows, task and plan are the same.
        splits: which of them become examples.
        parallel: the processes that share the run, each of which keeps its own encoded rows.

    Raises:
        ConfigError, DataError: see `Task.load_data`, `Method.segments`.
    """
    rows = rows if rows is not None else task.load_data()
    task, train_rows = task.draw_demonstrations(rows.get("train", []))
    bound = task.bind(base.tokenizer, base.max_positions - method.positions, method.keeps_instruction)
    how = plan(method.segments(SLOTS, len(bound.cue)), method.first_layer)
    digest = digest_of({name: [row.values for row in part] for name, part in rows.items()})
    kept = (cache or CacheSpec()).config((parallel or Processes()).name)
    if share is not None and _same(share, base, how, bound, kept):
        engine = share.engine
        there = all(name in share.splits for name in splits if name in rows)
        if there and (share.digest, share.task.spec, share.bound.room) == (digest, task.spec, bound.room):
            bound.cut = share.bound.cut
            return Prepared(base, task, method, bound, engine, share.splits, digest)
    else:
        engine = Engine(base, how, bound.head, bound.cue, kept, share.engine if share is not None else None)
    parts = {name: train_rows if name == "train" else rows[name] for name in splits if name in rows}
    return Prepared(
        base, task, method, bound, engine, {name: bound.examples(part) for name, part in parts.items()}, digest
    )


def _same(share: Prepared, base: Base, how: Plan, bound: BoundTask, cache: CacheConfig) -> bool:
    """Whether rows that were encoded there are the rows that would be encoded here."""
    there = share.engine
    mine = (how, bound.head, bound.cue, cache)
    return share.base.same(base) and (there.plan, there.head, there.cue, there.config) == mine


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
    share: Prepared | None = None,
    teaching: Teaching | None = None,
    progress: Progress = ignore_progress,
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

    Started by `torchrun` or `accelerate launch`, each process calls it alike and gets the same result; the first one writes.

    Raises:
        SoftpromptError: bad settings, rows, base, or a loss that is not finite.
    """
    method = method if isinstance(method, Method) else make_method(method)
    spec = train if isinstance(train, TrainSpec) else parse(TrainSpec, train or {}, "train")
    began, parallel = time.perf_counter(), processes()
    progress = progress if parallel.main else ignore_progress
    base = base.view(recompute=spec.checkpointing, autocast=torch.bfloat16 if spec.autocast else None)
    wanted = ("train", "dev", "test") if test else ("train", "dev")
    ready = prepare(base, task, method, cache, rows, share, wanted, parallel)
    train_rows, dev = ready.splits["train"], ready.splits.get("dev", [])
    method.attach(base, ready.bound, seed)
    trains = bool(method.parameters())
    spec = spec.filled(method, len(train_rows))
    if trains:
        _refuse_unusable(train_rows)
    settings = _settings(ready, spec if trains else None, seed)
    objective = None
    if teaching is not None:
        settings["teaching"], objective = teaching.record, teaching.objective(ready.engine)
    folder = Path(out) if out is not None else None
    store = _store(folder if parallel.main else None, settings, fresh)
    store.log(
        "start",
        plan=ready.engine.plan.explain(),
        rows={name: len(part) for name, part in ready.splits.items()},
        truncated=ready.bound.cut,
        duplicates=asdict(task.left_out),
        method=method.spec.model_dump(mode="json"),
    )
    best_step = 0
    if trains:
        ready.engine.encode([*parallel.share(train_rows), *parallel.share(dev)], progress)
    seconds = {"encode": time.perf_counter() - began}
    began = time.perf_counter()
    if trains:
        state = fit(
            ready.engine, method, ready.bound, train_rows, dev, spec, seed, store, progress, objective, parallel
        )
        best_step = state.best.get("step", state.step)
    else:
        method.solve(ready.engine, train_rows, dev, task, seed, progress)
        store.save(State(ended="solved"))
    seconds["train"] = time.perf_counter() - began
    began = time.perf_counter()
    metrics: dict[str, Evaluation] = {}
    for name in ("dev", "test") if test else ("dev",):
        if ready.splits.get(name):
            metrics[name] = evaluate(ready.engine, method, ready.bound, ready.splits[name], progress, parallel)
            if teaching is not None:
                metrics[name] = replace(metrics[name], estimate=replace(metrics[name].estimate, metric=teaching.metric))
            store.log("final", split=name, **metrics[name].estimate.as_dict())
    seconds["evaluate"] = time.perf_counter() - began
    size = sum(value.numel() for value in method.parameters() or method.export().values())
    result = Result(ready, metrics, None, seconds, size, best_step, ready.bound.cut)
    if isinstance(store, NoStore):
        result.events = store.events
    if folder is not None:
        result.artifact = folder / "artifact"
    if result.artifact is not None and folder is not None and parallel.main:
        save(result, result.artifact, settings)
        summary = {name: found.estimate.as_dict() for name, found in metrics.items()}
        write_json(folder / "result.json", {"metrics": summary, "seconds": seconds, "best_step": best_step})
        save_run_file(folder, base, task, method, spec, cache or CacheSpec(), seed)
    parallel.wait()
    return result


def save(result: Result, folder: Path, settings: dict[str, Any] | None = None) -> None:
    """Write the artifact of a finished run.

    Raises:
        ArtifactError: NaN in a tensor, or the folder holds something else.
    """
    ready, method = result.prepared, result.prepared.method
    tensors = method.export()
    settings = settings or _settings(ready, None, 0)
    taught = {"teaching": settings["teaching"]} if "teaching" in settings else {}
    values: dict[str, Any] = {
        "format_version": 1,
        "softprompt": importlib.metadata.version("softprompt"),
        "method": _without_paths(method.spec.model_dump(mode="json", exclude_none=True)),
        "layout": method.layout(),
        "task": _portable(ready.task.spec.model_dump(mode="json", exclude_none=True)),
        "base": {
            "id": Path(ready.base.name).name if Path(ready.base.name).is_absolute() else ready.base.name,
            "digest": ready.base.digest,
            "dtype": ready.base.label_of_dtype,
            "tokenizer_digest": ready.base.tokenizer_digest,
            "shape": ready.base.shape.as_dict(),
        },
        "tensors": {name: {"shape": list(value.shape), "dtype": "float32"} for name, value in tensors.items()},
        "metrics": {name: found.estimate.as_dict() for name, found in result.metrics.items()},
        "training": {"seed": settings["seed"], "best_step": result.best_step, **(settings["train"] or {}), **taught},
        "data": {"digest": ready.digest, **{name: len(part) for name, part in ready.splits.items()}},
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "parameters": {"trained": result.parameters, "stored": sum(value.numel() for value in tensors.values())},
    }
    config, files = method.adapter_config(ready.base), method.files()
    values["loads_in"] = "transformers" if files else "peft" if config else None
    manifest = artifacts.Manifest.model_validate(values)
    artifacts.save(folder, manifest, tensors, model_card(manifest), config, files)


def _refuse_unusable(rows: Sequence[Example]) -> None:
    if not rows:
        raise DataError("there are no training rows; set data.split.train or give data.train")
    problems = [f"{row.where}: the row has no label" for row in rows if row.gold is None]
    problems += [f"{row.where}: the text is empty" for row in rows if not row.text]
    if problems:
        raise DataError(f"{len(problems)} of {len(rows)} training rows cannot be used", problems)


def _settings(ready: Prepared, spec: TrainSpec | None, seed: int) -> dict[str, Any]:
    """All that decides the result; its digest names the run."""
    return {
        "base": [ready.base.digest, ready.base.tokenizer_digest, ready.base.arithmetic, ready.base.device.type],
        "task": ready.task.spec.model_dump(mode="json"),
        "method": ready.method.spec.model_dump(mode="json"),
        "train": spec.model_dump(mode="json", exclude_none=True) if spec else None,
        "cache": str(ready.engine.cache.dtype),
        "data": ready.digest,
        "seed": seed,
    }


def _store(folder: Path | None, settings: dict[str, Any], fresh: bool) -> Store:
    if folder is None:
        return NoStore()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; --out must name a folder")
    if fresh:
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    return FolderStore(folder, digest_of(settings))


def _portable(task: dict[str, Any]) -> dict[str, Any]:
    """Without paths of the training machine: an artifact travels."""
    return {**task, "data": _without_paths(task.get("data", {}))}


def _without_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Of every setting that names a file or folder, the last part of the path only."""
    named = ("source", "train", "dev", "test", "artifact")
    is_path = {k: isinstance(v, str) and "/" in v and not v.startswith("datasets:") for k, v in settings.items()}
    return {k: Path(v).name if k in named and is_path[k] else v for k, v in settings.items()}
