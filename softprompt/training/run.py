"""One run from rows to artifact: the way of the data, in order."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import torch
from typing_extensions import Unpack

from ..base import Base
from ..config import parse, suggest
from ..control import Control
from ..data import Row, in_memory, usable
from ..errors import ConfigError
from ..interrupts import explained
from ..methods import Method, make_method
from ..parallel import Processes, fail_together, processes
from ..prepared import Prepared, prepare, with_head
from ..runfile import CacheSpec, TrainSpec, check_seed
from ..surroundings import plain_torch
from ..tasks import Task
from ..trackers import check_installed, reporting
from ..trackers.reporter import KNOWN
from ..types import Notice, OnEvent, Progress, ignore_event, ignore_notice, ignore_progress
from ..values import kind
from .checkpoints import goes_on
from .choosing import resolve_scoring
from .contrastive import contrasted
from .events import both
from .job import Job
from .optimizers import check_optimizer
from .places import run_folder
from .result import Result
from .sharding import refuse
from .state import CustomObjective
from .word_dropout import check_word_dropout

SPLITS = ("train", "dev", "test")
_VALIDATION = ("validation", "valid", "val", "eval", "evaluation")
"""What other libraries call the split that training is evaluated on."""
_MOST_NAMED = 6  # names that a message lists


class RunOptions(TypedDict, total=False):
    """Options of a run beside what it learns.

    Attributes:
        test: also evaluate on the test rows, once, at the end.
        fresh: start over even if the folder holds a checkpoint.
        check: first check that the method acts and can learn (`doctor.QUICK`; the default). Errors stop the run.
        reuse: earlier runs whose encoded rows are used again (see `prepare`).
        part_of: number of all rows, if the training rows are a part of them (a fold). The run then makes their share of
            the steps.
        objective: minimised instead of the loss on labels, e.g. the distance to a teacher (see `distil.py`).
        progress: called with what is being done, and how far it is.
        notice: called at once with each warning of the checks, which the event log and `Result.findings` hold as well.
        on_event: given each new record of the event log (`events.jsonl`) as a dict, in order, also without a folder. A run
            that goes on gives those of the rest, a finished one those that it adds. An exception in it stops the run: a
            `TrainingError` names the event, and the exception is its cause. Of several processes the first one calls it.
    """

    test: bool
    fresh: bool
    check: bool
    reuse: Sequence[Prepared]
    part_of: int | None
    objective: CustomObjective | None
    progress: Progress
    notice: Notice
    on_event: OnEvent


@fail_together
@plain_torch()
def train(
    base: Base,
    task: Task,
    method: str | dict[str, Any] | Method,
    out: str | Path | None = None,
    *,
    train: TrainSpec | dict[str, Any] | None = None,
    cache: CacheSpec | None = None,
    seed: int = 0,
    rows: Any = None,
    **options: Unpack[RunOptions],
) -> Result:
    """Train a method on a task and save the artifact.

    Args:
        method: a name (`soft`), a mapping with its settings, or a `Method`.
        out: folder of the run: checkpoints, event log, `artifact/`. A run that was cut short goes on from it. A
            finished run is only measured on what was not measured yet. None keeps everything in memory.
        rows: used instead of the task's own data. A DataFrame, a `datasets.Dataset` or a list of dicts is split as a
            file is. A mapping from split (`train`, `dev`, `test`) to such rows, or to `Row`s that were loaded already,
            is used as it is.
        options: see `RunOptions`.

    Started by `torchrun` or `accelerate launch`, each process calls it alike and gets the same result; the first one writes.

    Raises:
        SoftpromptError: bad settings, rows or base; the check before training failed; a loss is not finite. Also if
            `out` cannot be written, another run is at work there, or it holds a run of other settings.
        Interrupted: a KeyboardInterrupt (Ctrl-C; while training SIGTERM and SIGHUP, too) after a step that was kept.
            The message says from where the same call goes on.
    """
    _check_given(base, task)
    rows = _splits(task, rows)
    test = options.get("test", False)
    seed, parallel = check_seed(seed), processes()
    method, spec = _settled(base, task, method, train)
    trackers = spec.trackers
    spec = spec.model_copy(update={"report_to": None})  # no part of what names the run, nor of what it leaves
    control = _control(parallel, options)
    cache = cache or CacheSpec()
    kept = cache.config(parallel.name)
    folder = Path(out) if out is not None else None
    fresh, reported = options.get("fresh", False), trackers if parallel.main else []
    with (
        run_folder(folder, [KNOWN] if reported else []),
        explained(lambda: goes_on(folder)),
        reporting(reported, folder, fresh, control.notice) as report,
    ):
        control = replace(control, on_event=both(control.on_event, report))
        began, wanted = time.perf_counter(), ("train", "dev", "test") if test else ("train", "dev")
        task = resolve_scoring(base, task, rows, kept, control)
        ready = prepare(_viewed(base, spec), task, method, kept, rows, options.get("reuse", ()), wanted, seed)
        spec = spec.filled(method, len(ready.splits["train"]), options.get("part_of"))
        job = Job(ready, task, spec, cache, seed, folder, options.get("objective"), control)
        result = job.run(wanted[1:], fresh, options.get("check", True), began)
        parallel.wait()
    return result


def check_run(
    base: Base,
    task: Task,
    method: str | dict[str, Any] | Method,
    rows: dict[str, list[Row]],
    train: TrainSpec | dict[str, Any] | None = None,
    seed: int = 0,
) -> Prepared:
    """Look at a run as `train` does before it encodes a row.

    Args:
        rows: by split, loaded.

    Returns:
        the run, bound and with its method initialised, without examples.

    Raises:
        SoftpromptError: settings, task and base do not go together; see `train`.
    """
    method, spec = _settled(base, task, method, train)
    base = _viewed(base, spec)
    tasks = [task.scored_by(way) for way in task.ways] or [task]
    ready = [prepare(base, each, method, rows=rows, splits=(), seed=seed) for each in tasks]
    return ready[0]


def _settled(
    base: Base, task: Task, method: str | dict[str, Any] | Method, train: TrainSpec | dict[str, Any] | None
) -> tuple[Method, TrainSpec]:
    """The method with its head, as it is trained, and how.

    Raises:
        SoftpromptError: they do not go together with the base, the task or this installation.
    """
    method = with_head(method if isinstance(method, Method) else make_method(method), base, task)
    spec = train if isinstance(train, TrainSpec) else parse(TrainSpec, train or {}, "train")
    check_installed(spec.trackers)
    check_optimizer(spec.optimizer)
    refuse(method, base, spec, processes())
    check_word_dropout(spec.word_dropout, base)
    if spec.objective is not None:
        method = contrasted(method, base, task, spec, processes())
    return method, spec


def _viewed(base: Base, spec: TrainSpec) -> Base:
    """The base as it is run in this training; see `Base.view`."""
    autocast = torch.bfloat16 if spec.autocast else None
    return base.view(gradient_checkpointing=spec.gradient_checkpointing, autocast=autocast)


def _control(parallel: Processes, options: RunOptions) -> Control:
    """Of several processes only the first one tells."""
    if not parallel.main:
        return Control(parallel=parallel)
    progress, notice = options.get("progress", ignore_progress), options.get("notice", ignore_notice)
    return Control(parallel=parallel, progress=progress, notice=notice, on_event=options.get("on_event", ignore_event))


def _check_given(base: Any, task: Any) -> None:
    """
    Raises:
        ConfigError: something else where a base or a task is expected.
    """
    for name, value, wanted in (("base", base, Base), ("task", task, Task)):
        if not isinstance(value, wanted):
            raise ConfigError(f"{name} is {kind(value)}; expected a {wanted.__name__}, e.g. {wanted.__name__}.load(…)")


def _splits(task: Task, rows: Any) -> dict[str, list[Row]] | None:
    """Rows by split, however they were given; None where the task's own data are meant.

    Raises:
        ConfigError: a mapping of something else than splits.
        DataError: rows that cannot be used.
    """
    if rows is None:
        return None
    if not isinstance(rows, Mapping):
        given = list(rows) if isinstance(rows, (list, tuple)) else rows
        if isinstance(given, list) and any(isinstance(row, Row) for row in given):
            raise ConfigError("rows are a list of Rows; give them by split, e.g. {'train': […], 'dev': […]}")
        return task.load_data(rows=given)
    check_splits(rows)
    return {"train": [], **{name: _split(task, name, given) for name, given in rows.items()}}


def check_splits(rows: Mapping[Any, Any]) -> None:
    """
    Raises:
        ConfigError: a mapping of something else than splits, or with a split that nothing would read; each is named.
    """
    other = [name for name in rows if name not in SPLITS]
    if len(other) == len(rows):
        shown = ", ".join(map(repr, other[:_MOST_NAMED])) or "nothing"
        raise ConfigError(f"rows are a mapping with {shown}; expected them by split, e.g. {{'train': […], 'dev': […]}}")
    if other:
        problems = [_unread(name, "dev" in rows) for name in other]
        raise ConfigError("; ".join(problems[:_MOST_NAMED]), problems)


def _unread(name: Any, has_dev: bool) -> str:
    """What to do with a split of another name."""
    if not has_dev and str(name).lower() in _VALIDATION:
        return f"rows[{name!r}] is no split that is read; name it 'dev'"
    return f"rows[{name!r}] is no split that is read{suggest(str(name), SPLITS)}; rename it or leave it out"


def _split(task: Task, name: str, given: Any) -> list[Row]:
    """The rows of one split: as they are, or of a table, each checked."""
    some = list(given) if isinstance(given, (list, tuple)) else given
    if isinstance(some, list) and all(isinstance(row, Row) for row in some):
        return some
    found = in_memory(some, f"rows[{name!r}]")
    return usable(found, f"rows[{name!r}]", task.check_any, task.spec.data.columns)
