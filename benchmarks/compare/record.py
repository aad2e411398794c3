"""What a run leaves behind: one JSON file, format 1 (docs/benchmarks.md describes it), and the rows it was tested on.

DIR/runs/ID.json   a record, written as a whole when the run has ended
DIR/rows/DIGEST.json   where the rows of a test are and what is right; several records name the same one
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from softprompt.answers import Evaluation
from softprompt.benchmarks.reading import read_record
from softprompt.config import Strict
from softprompt.errors import DataError
from softprompt.storage import digest_of, write_text


class Place(Strict):
    """Where a run stands in the table.

    Attributes:
        contender: the row's name in the suite.
        size: labelled rows for training and choosing; null where none are trained on.
        family: contenders that differ in `factors` only; by default the contender itself.
        factors: settings by which contenders of one family differ, e.g. {"length": 20, "init": "text"}.
    """

    base: str
    task: str
    contender: str
    size: int | None = None
    family: str = ""
    factors: dict[str, str | int | float | None] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _of_its_own(self) -> Place:
        if not self.family:
            object.__setattr__(self, "family", self.contender)
        return self

    def named(self, several: bool) -> str:
        """The contender; where there are several bases or tasks, on which."""
        return f"{self.contender} on {self.base}, {self.task}" if several else self.contender


class Measured(Strict):
    """A metric on rows, with what was answered row by row.

    Attributes:
        interval: 95 %, over rows.
        nll: mean −log-score of the right answers; null where there are no scores.
        digest: of the rows; `rows/DIGEST.json` holds them.
        predicted: labels, texts or lists of tags, in the rows' order; null where dev only chooses.
    """

    metric: str
    value: float
    interval: tuple[float, float]
    rows: int
    nll: float | None = None
    digest: str
    predicted: list[str | list[str]] | None = None


class DevEvaluation(Strict):
    """`metric` is the task's, or `log_likelihood` where no answers are written to evaluate; null in older records."""

    step: int
    value: float
    nll: float
    metric: str | None = None


class Seconds(Strict):
    """Where the time went, seconds. `encode`: what is frozen, kept; `train`: steps; `look`: on dev; `test`: on test rows."""

    encode: float = 0.0
    train: float = 0.0
    look: float = 0.0
    test: float = 0.0


class Tokens(Strict):
    """Tokens of the base.

    Attributes:
        trained: of all training steps: rows' texts, cues, answers (a row counts in each epoch).
        per_second: of `trained` and `seconds.train`.
        request: run for one request in the mean when nothing is kept: instruction, demonstrations, prompt, text, cue.
        request_kept: the same when what all requests share has been run before.
    """

    trained: int = 0
    per_second: float | None = None
    request: float | None = None
    request_kept: float | None = None


class Record(Strict):
    """One run.

    Attributes:
        stage: `trial` chooses (dev only), `final` reports.
        status, reason: a failed run says why, and has nothing else; so does a skipped one, of an `optional` contender that
            cannot run here.
        lr: the run's learning rate; null where nothing is learned by gradients.
        share: of the full number of steps (below 1 in the early rounds of successive halving).
        round: of the search, from 0; null of a final run.
        config: all settings, resolved: base, task, method, train, cache.
        tests: by the test's task; the run's own task first.
        trained, stored: numbers that are learned; numbers in the artifact.
        peak_rss, peak_cuda: bytes; `peak_rss` only of a run in a process of its own (`--isolate`), as others share one.
        best_step, steps: the step that was kept, and how many were made.
        truncated: texts that were cut to fit.
        digests: base, tokenizer, data.
        seconds_in_all: from the start of the run to its record.
        cpu_seconds: of processor time in it, all threads together, which other work on the machine does not lengthen as much.
    """

    format: Literal[1] = 1
    id: str
    suite: str
    stage: Literal["trial", "final"]
    status: Literal["done", "failed", "skipped"] = "done"
    reason: str | None = None
    place: Place
    seed: int
    lr: float | None = None
    share: float = 1.0
    round: int | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    dev: Measured | None = None
    tests: dict[str, Measured] = Field(default_factory=dict)
    curve: list[DevEvaluation] = Field(default_factory=list)
    trained: int | None = None
    stored: int | None = None
    artifact_bytes: int | None = None
    best_step: int | None = None
    steps: int | None = None
    truncated: int = 0
    seconds: Seconds = Field(default_factory=Seconds)
    seconds_in_all: float = 0.0
    cpu_seconds: float = 0.0
    tokens: Tokens = Field(default_factory=Tokens)
    peak_rss: int | None = None
    peak_cuda: int | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    commit: str | None = None
    dirty: bool | None = None
    machine: dict[str, Any] = Field(default_factory=dict)
    digests: dict[str, str] = Field(default_factory=dict)
    when: str = ""


Rows = dict[str, Any]
"""{"where": [n], "gold": [n]} of the rows of a test."""


def measured(found: Evaluation, answers: bool = True) -> tuple[Measured, Rows]:
    """An evaluation as a record holds it, and its rows."""
    rows = {"where": [short(one.where) for one in found.outcomes], "gold": [one.gold for one in found.outcomes]}
    estimate = found.estimate
    held = Measured(
        metric=estimate.metric,
        value=estimate.value,
        interval=estimate.interval,
        rows=estimate.rows,
        nll=found.nll if any(one.nll is not None for one in found.outcomes) else None,
        digest=digest_of(rows)[:16],
        predicted=[one.predicted for one in found.outcomes] if answers else None,
    )
    return held, rows


def keep_tests(record: Record, found: Mapping[str, Evaluation]) -> dict[str, Rows]:
    """Put what came of each test into the record; their rows, by the digests that it names."""
    held: dict[str, Rows] = {}
    for name, evaluation in found.items():
        record.tests[name], rows = measured(evaluation)
        held[record.tests[name].digest] = rows
    return held


def short(where: str) -> str:
    """`file:line` without the file's folder: results travel, and the folder is another one on each machine."""
    return re.split(r"[/\\]", where)[-1]


def write(folder: Path, record: Record, rows: dict[str, Rows] | None = None) -> None:
    """Write a record, whole or not at all, behind the rows that it names."""
    for digest, held in (rows or {}).items():
        if not (path := folder / "rows" / f"{digest}.json").exists():
            write_text(path, json.dumps(held, ensure_ascii=False) + "\n")
    text = json.dumps(record.model_dump(mode="json"), ensure_ascii=False)
    write_text(folder / "runs" / f"{record.id}.json", text + "\n")


def read(path: Path) -> Record:
    """Read one record; see `read_record` for what is raised."""
    return read_record(Record, path, "run the suite again")


def read_all(folder: Path) -> dict[str, Record]:
    """All records of a results folder by id, in the order of their names."""
    return {record.id: record for record in map(read, sorted((folder / "runs").glob("*.json")))}


def gold_of(folder: Path, digest: str) -> tuple[list[str], Sequence[Any]]:
    """(`file:line` of each row, what is right) of the rows with this digest.

    Raises:
        DataError: the file is missing or broken.
    """
    path = folder / "rows" / f"{digest}.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return data["where"], data["gold"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be read ({error}); it belongs to the records in {folder / 'runs'}") from None
