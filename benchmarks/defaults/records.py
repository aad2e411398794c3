"""What a run leaves behind: `RESULTS/TASK/CONTENDER-SEED.json`, written as a whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from sklearn.metrics import f1_score

from softprompt.benchmarks import provenance
from softprompt.benchmarks.defaults.contender import Prediction
from softprompt.benchmarks.defaults.data import DataSet, label_of
from softprompt.benchmarks.reading import read_record
from softprompt.config import Strict
from softprompt.data import Row
from softprompt.errors import DataError
from softprompt.storage import write_text

LEAST_PROBABILITY = 1e-6
"""What a label's probability counts as at least in the log loss: some contenders rule out labels that they never saw."""


class Record(Strict):
    """One run.

    Attributes:
        digest: of the data file, the sizes and the contender's settings.
        status, reason: a failed run says why, and has no figures; it is made again.
        labels: all K, in their order.
        rows: labelled rows and test rows.
        accuracy, macro_f1: over the test rows, from 0 to 1.
        log_loss: mean −log-probability of the right label, nats; see `LEAST_PROBABILITY`.
        majority: accuracy of always answering the commonest label of the labelled rows.
        predicted: of each test row, the index of the predicted label in `labels`.
        fit_seconds, predict_seconds: see `Prediction`.
        cpu_seconds: of processor time in the run, all threads and other processes of it together.
        settings, info: of the contender.
    """

    format: Literal[1] = 1
    task: str
    contender: str
    seed: int
    digest: str
    status: Literal["done", "failed"] = "done"
    reason: str | None = None
    labels: list[str] = Field(default_factory=list)
    rows: dict[str, int] = Field(default_factory=dict)
    accuracy: float = 0.0
    macro_f1: float = 0.0
    log_loss: float = 0.0
    majority: float = 0.0
    predicted: list[int] = Field(default_factory=list)
    fit_seconds: float = 0.0
    predict_seconds: float = 0.0
    cpu_seconds: float = 0.0
    settings: dict[str, Any] = Field(default_factory=dict)
    info: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=provenance.versions)
    machine: dict[str, Any] = Field(default_factory=provenance.machine)
    commit: str | None = Field(default_factory=lambda: provenance.commit()[0])
    dirty: bool | None = Field(default_factory=lambda: provenance.commit()[1])
    when: str = Field(default_factory=provenance.now)

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.fit_seconds + self.predict_seconds


def measured(data: DataSet, train: Sequence[Row], prediction: Prediction) -> dict[str, Any]:
    """The figures of a record.

    Raises:
        DataError: log-probabilities of another shape, or NaN.
    """
    shape = (len(data.test), len(data.labels))
    if prediction.log_probs.shape != shape or np.isnan(prediction.log_probs).any():
        raise DataError(
            f"log-probabilities of shape {prediction.log_probs.shape}, some maybe NaN; expected {shape}, all numbers"
        )
    index_of = {label: index for index, label in enumerate(data.labels)}
    gold = np.array([index_of[label_of(row)] for row in data.test])
    predicted = prediction.log_probs.argmax(axis=1)
    own = np.maximum(prediction.log_probs[np.arange(len(gold)), gold], np.log(LEAST_PROBABILITY))
    seen = np.bincount([index_of[label_of(row)] for row in train], minlength=len(data.labels))
    return {
        "labels": list(data.labels),
        "rows": {"train": len(train), "test": len(gold)},
        "accuracy": float((predicted == gold).mean()),
        "macro_f1": float(f1_score(gold, predicted, average="macro", zero_division=0)),
        "log_loss": float(-own.mean()),
        "majority": float((gold == seen.argmax()).mean()),
        "predicted": predicted.tolist(),
        "fit_seconds": prediction.fit_seconds,
        "predict_seconds": prediction.predict_seconds,
        "info": prediction.info,
    }


def path_of(results: Path, task: str, contender: str, seed: int) -> Path:
    """Where a run's record stands."""
    return results / task / f"{contender}-{seed}.json"


def write(results: Path, record: Record) -> None:
    """Write a record atomically.

    Raises:
        SoftpromptError: the folder cannot be written.
    """
    path = path_of(results, record.task, record.contender, record.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record.model_dump(mode="json"), ensure_ascii=False) + "\n")


def read(path: Path) -> Record:
    """Read one record; see `read_record` for what is raised."""
    return read_record(Record, path, "make the run again")


def read_all(results: Path) -> list[Record]:
    """All records of a results folder, by task, contender and seed.

    Raises:
        DataError: there are none, or one cannot be read.
    """
    every = [read(path) for path in results.glob("*/*.json")]
    if not every:
        raise DataError(f"{results}: holds no record (RESULTS/TASK/CONTENDER-SEED.json)")
    return sorted(every, key=lambda record: (record.task, record.contender, record.seed))
