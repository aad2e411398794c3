"""SetFit as a contender: the same rows and seeds, in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from softprompt.answers import Evaluation, Outcome, summarize
from softprompt.benchmarks.compare.context import RunContext
from softprompt.benchmarks.compare.peers import run_setfit
from softprompt.benchmarks.compare.record import Record, Rows, Seconds, keep_tests, measured
from softprompt.benchmarks.compare.runs import Run
from softprompt.data import Row
from softprompt.errors import ConfigError
from softprompt.tasks import Task


def run_setfit_row(run: Run, context: RunContext, record: Record) -> dict[str, Rows]:
    """Train SetFit on the run's rows (one text and one label each), measure on dev, and of a reported run on the tests.

    The seed decides dropout and the order of pairs; the draw of training rows is that of the other contenders. A trial's share
    of the steps is a share of SetFit's.

    Raises:
        ConfigError: the task is no classification, or reads more than one field.
        MissingExtraError, SoftpromptError: see `run_setfit`.
    """
    cell, task = run.cell, Task.load(run.cell.task)
    if task.form != "chosen" or len(task.fields) != 1 or not task.words:
        raise ConfigError(f"setfit takes one text and one label a row; task {task.name!r} is another kind")
    rows = context.rows(run)
    tests = context.tests(run, rows["test"]) if run.stage == "final" else {}
    found = run_setfit(
        {
            **cell.contender.method,
            "share": run.share,
            "train": _texts(task, rows["train"]),
            "dev": _texts(task, rows["dev"]),
            "tests": {name: _texts(task, part) for name, part in tests.items()},
            "labels": sorted(
                {str(task.gold(row.values)) for part in (rows["train"], rows["dev"], *tests.values()) for row in part}
            ),
            "seed": run.seed,
            "lr": run.lr,
        }
    )
    record.dev = measured(_evaluated(task, rows["dev"], found, "dev"), answers=False)[0]
    held = keep_tests(record, {name: _evaluated(task, part, found, name) for name, part in tests.items()})
    record.seconds = Seconds(train=found["seconds"]["train"], test=found["seconds"]["test"])
    record.steps, record.trained, record.stored = found["steps"], found["trained"], found["stored"]
    record.artifact_bytes, record.truncated = found["artifact_bytes"], found["truncated"]
    record.peak_rss, record.peak_cuda = found["peak_rss"], found["peak_cuda"]
    record.config = {
        "task": task.spec.model_dump(mode="json", exclude_none=True),
        "setfit": {
            "max_steps": 60,
            **cell.contender.method,
            "lr": run.lr,
            "pairs": found["pairs"],
            "pairs_by_default": found["pairs_by_default"],
        },
        "versions": found["versions"],
        "rows": {name: len(rows[name]) for name in ("train", "dev")},
    }
    return held


def _texts(task: Task, rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [{"text": task.content(row), "label": str(task.gold(row.values))} for row in rows]


def _evaluated(task: Task, rows: Sequence[Row], found: dict[str, Any], name: str) -> Evaluation:
    """The metric, with the loss that SetFit tells as a mean: there it is every row's."""
    pairs = zip(rows, found["predicted"][name], strict=True)
    nll = found["nll"].get(name)
    outcomes = [Outcome(row.where, task.gold(row.values), predicted, nll=nll) for row, predicted in pairs]
    return summarize(task.spec.metric, outcomes)
