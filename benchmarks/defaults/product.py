"""Contenders of the product: each method by its defaults, on the task that is proposed for a CSV file."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from softprompt.answers import evaluate
from softprompt.base.memory import give_back_freed_memory
from softprompt.benchmarks.defaults.contender import Context, Prediction
from softprompt.benchmarks.defaults.data import labelled_splits
from softprompt.data import Row
from softprompt.storage import digest_of
from softprompt.tasks import Task
from softprompt.tasks.proposed import propose
from softprompt.training import train
from softprompt.training.result import Result

_EARLIER = 10  # steps whose median loss a spike is compared with
_TIMES, _NATS = 2.0, 0.5


@dataclass(frozen=True)
class ProductMethod:
    """A method of the registry.

    Attributes:
        method: its settings, beside the name.
        base: bundled name or folder.
        train: what else a run file's `train` section says.
    """

    name: str
    method: Mapping[str, Any]
    base: str = "smollm2"
    train: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """Of the method; its defaults are not among them, they are what is measured."""
        told = {"train": dict(self.train)} if self.train else {}
        return {"name": self.name, "method": dict(self.method), "base": self.base, **told}

    def fit_predict(
        self, train_rows: Sequence[Row], test_rows: Sequence[Row], labels: Sequence[str], seed: int, context: Context
    ) -> Prediction:
        """See `Contender`."""
        base = context.base(self.base)
        task = Task.load(propose("classification", ["text"], labels))
        began = time.perf_counter()
        splits = labelled_splits(task, train_rows, seed)
        result = train(base, task, dict(self.method), train=dict(self.train), seed=seed, rows=splits, check=False)
        fitted = time.perf_counter()
        ready = result.prepared
        outcomes = evaluate(ready, ready.form.encode_rows(test_rows)).outcomes
        log_probs = np.array([[outcome.scores[label] for label in labels] for outcome in outcomes])
        seconds = fitted - began, time.perf_counter() - fitted
        info = {"base": self.base, **_told(result)}
        del result, ready
        give_back_freed_memory()
        return Prediction(log_probs, *seconds, info)


def _told(result: Result) -> dict[str, Any]:
    """What a record holds of a training run."""
    losses = [event["loss"] for event in result.events if event["event"] == "step"]
    dev = result.metrics.get("dev")
    return {
        "learned": bool(losses),
        "steps": len(losses),
        "kept_step": result.best_step,
        "spikes": spikes(losses) if losses else None,
        "findings": [event["check"] for event in result.events if event["event"] == "doctor"],
        "dev": None if dev is None else {"accuracy": dev.estimate.value, "nll": dev.nll, "rows": dev.estimate.rows},
        "rows": {name: len(part) for name, part in result.prepared.splits.items()},
        "trained": result.parameters,
        "truncated": result.truncated,
        "train": result.settings.get("train"),
        "digest": digest_of(result.settings),
    }


def spikes(losses: Sequence[float]) -> int:
    """Steps whose loss is over twice the median of the ten steps before, and over it by more than half a nat."""
    count = 0
    for step in range(_EARLIER, len(losses)):
        usual = float(np.median(losses[step - _EARLIER : step]))
        count += losses[step] > max(_TIMES * usual, usual + _NATS)
    return count
