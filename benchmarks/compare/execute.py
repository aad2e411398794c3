"""One run, from its settings to its record. What fails becomes a record too."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from softprompt.answers import Evaluation, evaluate
from softprompt.base.memory import peak_memory
from softprompt.benchmarks import provenance
from softprompt.benchmarks.compare.context import RunContext
from softprompt.benchmarks.compare.majority import run_majority
from softprompt.benchmarks.compare.record import DevEvaluation, Record, Rows, Seconds, Tokens, keep_tests, measured
from softprompt.benchmarks.compare.runs import Run
from softprompt.config import parse
from softprompt.control import Control
from softprompt.errors import ConfigError, MissingExtraError, SoftpromptError
from softprompt.prepared import Prepared
from softprompt.tasks import Task
from softprompt.training import TrainSpec
from softprompt.training.loop import batch_at
from softprompt.training.result import Result
from softprompt.training.run import train
from softprompt.training.saving import save, settings_of
from softprompt.types import Example, Progress, ignore_progress

Done = tuple[Record, dict[str, Rows]]
GB = 1e9


def execute(
    run: Run,
    context: RunContext,
    own_process: bool,
    artifacts: Path | None = None,
    progress: Progress = ignore_progress,
) -> Done:
    """Make a run; never raises but for what stops the program (Ctrl-C).

    Args:
        own_process: nothing else has run in this process, so its peak memory is the run's.
        artifacts: folder in which the artifact of a reported run is kept.

    Returns:
        The record, `failed` with a reason if it came to that, and the rows that it names by digest.
    """
    began, processor = time.perf_counter(), provenance.processor_seconds()
    record, rows = run.record(), {}
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        rows = _KINDS[run.cell.contender.kind](run, context, record, artifacts, progress)
    except SoftpromptError as error:
        record = run.record()
        cannot = isinstance(error, ConfigError | MissingExtraError) and run.cell.contender.optional
        record.status, record.reason = "skipped" if cannot else "failed", str(error)
    except Exception as error:
        record = run.record()
        record.status, record.reason = "failed", f"{type(error).__name__}: {error}".splitlines()[0]
    peak = peak_memory()
    if own_process and record.peak_rss is None and "peak_rss_gb" in peak:  # a peer tells that of its own process
        record.peak_rss = round(peak["peak_rss_gb"] * GB)
    if record.peak_cuda is None and "peak_cuda_gb" in peak:
        record.peak_cuda = round(peak["peak_cuda_gb"] * GB)
    record.seconds_in_all, record.cpu_seconds = time.perf_counter() - began, provenance.processor_seconds() - processor
    record.when = provenance.now()
    record.versions, record.machine = provenance.versions(), provenance.machine()
    record.commit, record.dirty = provenance.commit()
    return record, rows


def _run_method(
    run: Run, context: RunContext, record: Record, artifacts: Path | None, progress: Progress
) -> dict[str, Rows]:
    """Train (or, where nothing is learned, only ask) and measure: on dev, and a reported run on the tests, once."""
    cell = run.cell
    base, task, rows = context.base(cell), context.asked(run), context.rows(run)
    tests = context.tests(run, rows["test"])  # what is wrong with them a trial says, before hours have gone
    method = context.method(cell)
    spec = parse(TrainSpec, {**cell.train, "lr": run.lr}, f"{cell.place.contender}: train")
    if run.share < 1:
        whole = spec.filled(method, len(rows["train"])).max_steps
        assert whole is not None
        spec = spec.model_copy(update={"max_steps": max(1, round(whole * run.share))})
    wanted = {name: rows[name] for name in ("train", "dev")}
    shared = context.shared(cell)
    result = train(
        base,
        task,
        method,
        train=spec,
        cache=context.cache,
        seed=run.seed,
        rows=wanted,
        reuse=shared,
        progress=progress,
        check=not shared,  # the first one on a base and task is looked at by the doctor
    )
    ready = result.prepared
    if dev := result.metrics.get("dev"):
        record.dev = measured(dev, answers=False)[0]
    began = time.perf_counter()
    asked = tests if run.stage == "final" else {}
    examples = {name: ready.form.encode_rows(part) for name, part in asked.items()}
    found = keep_tests(record, {name: _test(ready, part, progress) for name, part in examples.items()})
    spent = time.perf_counter() - began if asked else 0.0
    spec = spec.filled(ready.method, len(ready.splits["train"]))
    # of a reported run the same requests as every other contender's
    requests = next(iter(examples.values()), None) or ready.splits.get("dev", [])
    _tell_training(record, result, spec, run.seed, spent, requests)
    _tell_artifact(record, result, run, spec, artifacts)
    record.config = {
        "base": cell.base,
        "task": ready.task.spec.model_dump(mode="json", exclude_none=True),
        "method": ready.method.spec.model_dump(mode="json", exclude_none=True),
        "train": spec.model_dump(mode="json", exclude_none=True),
        "cache": context.cache.model_dump(mode="json", exclude_none=True),
        "rows": {name: len(part) for name, part in wanted.items()},
    }
    record.digests |= {"base": base.digest, "tokenizer": base.tokenizer_digest, "data": ready.digest}
    context.keep(cell, ready)
    return found


def _test(ready: Prepared, examples: Sequence[Example], progress: Progress) -> Evaluation:
    """The metric on test rows; texts that are kept for the next run are encoded before."""
    if ready.method.parameters():
        ready.engine.encode(examples, progress)
    return evaluate(ready, examples, Control(progress))


def _tell_training(
    record: Record, result: Result, spec: TrainSpec, seed: int, test: float, requests: Sequence[Example]
) -> None:
    """Times, tokens and dev evaluations, from the run's event log."""
    steps = [event for event in result.events if event["event"] == "step"]
    evaluations = [event for event in result.events if event["event"] == "dev"]
    record.curve = [
        DevEvaluation(**{name: event[name] for name in ("step", "value", "nll", "metric")}) for event in evaluations
    ]
    record.steps, record.best_step, record.truncated = len(steps), result.best_step, result.truncated
    evaluating = sum(event["seconds"] for event in evaluations)
    record.seconds = Seconds(
        encode=result.seconds["encode"],
        train=max(0.0, result.seconds["train"] - evaluating),
        look=evaluating + result.seconds["evaluate"],
        test=test,
    )
    ready = result.prepared
    front, row = _request(ready)
    sizes = [len(example.text) for example in requests]
    mean = sum(sizes) / max(1, len(sizes))
    record.tokens = Tokens(request=front + mean + row, request_kept=mean + row)
    if steps:
        assert spec.batch_size
        rows = ready.splits["train"]
        trained = sum(
            _size(ready, rows[place])
            for step in range(len(steps))
            for place in batch_at(range(len(rows)), step, spec.batch_size, seed)
        )
        seconds = record.seconds.train
        record.tokens = record.tokens.model_copy(
            update={"trained": trained, "per_second": trained / seconds if seconds else None}
        )


def _size(ready: Prepared, example: Example) -> int:
    """Tokens of a training row: its text, question and cue, its answer."""
    return len(example.text) + len(ready.bound.behind) + len(example.answer)


def _request(ready: Prepared) -> tuple[int, int]:
    """Tokens of the context that all requests share, and those that each brings, its text aside.

    Learned keys and values stand in no token's place: nothing runs for them.
    """
    method, engine = ready.method, ready.engine
    learned = method.length if method.stores == "embeddings" else 0
    front, behind = (0, learned) if method.place == "infix" else (learned, 0)
    return len(engine.prefix_ids) + front, len(ready.bound.behind) + behind


def _tell_artifact(record: Record, result: Result, run: Run, spec: TrainSpec, keep: Path | None) -> None:
    """What must be stored: numbers and bytes, measured on the artifact itself."""
    method = result.prepared.method
    tensors = method.export()
    record.trained = 0 if not tensors else result.parameters
    record.stored = sum(value.numel() for value in tensors.values())
    if run.stage == "trial":
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "artifact" if keep is None else keep / run.id
        trains = bool(method.parameters())
        save(result, folder, settings_of(result.prepared, spec if trains else None, run.seed))
        record.artifact_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _run_setfit(
    run: Run, context: RunContext, record: Record, artifacts: Path | None, progress: Progress
) -> dict[str, Rows]:
    from softprompt.benchmarks.compare.peers.rows import run_setfit_row

    return run_setfit_row(run, context, record)


def _run_tfidf(
    run: Run, context: RunContext, record: Record, artifacts: Path | None, progress: Progress
) -> dict[str, Rows]:
    from softprompt.benchmarks.compare.peers.tfidf import run_tfidf_row

    return run_tfidf_row(run, context, record)


def _run_majority(
    run: Run, context: RunContext, record: Record, artifacts: Path | None, progress: Progress
) -> dict[str, Rows]:
    rows = context.rows(run)
    return run_majority(Task.load(run.cell.task), rows, context.tests(run, rows["test"]), record)


_KINDS: dict[str, Callable[..., dict[str, Rows]]] = {
    "method": _run_method,
    "majority": _run_majority,
    "tfidf": _run_tfidf,
    "setfit": _run_setfit,
}
