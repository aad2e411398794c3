"""Contenders on MiniLM, an encoder of sentences: its frozen states, and SetFit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from softprompt.base import Base
from softprompt.benchmarks.compare.peers import run_setfit
from softprompt.benchmarks.defaults.contender import Context, Prediction, in_order
from softprompt.benchmarks.defaults.data import label_of, texts_of
from softprompt.data import Row
from softprompt.methods import make_method
from softprompt.prepared import bind
from softprompt.tasks import Task

BASE = "minilm"


@dataclass(frozen=True)
class FrozenStates:
    """Logistic regression on the mean of the frozen encoder's last states; the text stands alone, without a template."""

    name: str = "minilm_lr"
    base: str = BASE
    strength: float = 1.0
    max_iter: int = 2000

    @property
    def settings(self) -> dict[str, Any]:
        """Of the encoder and the regression."""
        return {"name": self.name, "base": self.base, "strength": self.strength, "max_iter": self.max_iter}

    def fit_predict(
        self, train_rows: Sequence[Row], test_rows: Sequence[Row], labels: Sequence[str], seed: int, context: Context
    ) -> Prediction:
        """See `Contender`."""
        base = context.base(self.base)
        began = time.perf_counter()
        model = LogisticRegression(C=self.strength, max_iter=self.max_iter)
        model.fit(mean_states(base, train_rows, labels), [label_of(row) for row in train_rows])
        fitted = time.perf_counter()
        log_probs = model.predict_log_proba(mean_states(base, test_rows, labels))
        seconds = fitted - began, time.perf_counter() - fitted
        return Prediction(in_order(log_probs, list(model.classes_), labels), *seconds, {"base": self.base})


def mean_states(base: Base, rows: Sequence[Row], labels: Sequence[str]) -> np.ndarray:
    """The mean of each text's last states in an encoder, [n, H]; texts longer than its context are cut."""
    task = Task.load(
        {
            "version": 1,
            "name": "states",
            "type": "classification",
            "template": {"input": "{{ text }}", "cue": "", "answer": "{{ answer }}"},
            "verbalizer": {label: label for label in labels},
        }
    )
    prompt = bind(base, task, make_method("probe"))
    return prompt.engine.features(prompt.form.encode_rows(rows)).numpy()


@dataclass(frozen=True)
class SetFit:
    """SetFit (Tunstall et al. 2022, arXiv:2209.11055) by its own defaults, in a process of its own.

    Attributes:
        max_steps: optimizer steps at most; None as SetFit's own default, one epoch over all pairs.
    """

    name: str = "setfit"
    base: str = BASE
    epochs: int = 1
    max_steps: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What is asked of SetFit."""
        return {"name": self.name, "base": self.base, "epochs": self.epochs, "max_steps": self.max_steps}

    def fit_predict(
        self, train_rows: Sequence[Row], test_rows: Sequence[Row], labels: Sequence[str], seed: int, context: Context
    ) -> Prediction:
        """See `Contender`; the seconds are those of the other process, without its start."""
        answer = run_setfit(
            {
                "base": self.base,
                "epochs": self.epochs,
                "max_steps": self.max_steps,
                "seed": seed,
                "labels": list(labels),
                "train": _requested(train_rows),
                "tests": {"test": _requested(test_rows)},
            }
        )
        with np.errstate(divide="ignore"):  # a label that no training row has gets −inf
            log_probs = np.log(np.array(answer["probabilities"]["test"]))
        info = {name: answer[name] for name in ("steps", "pairs", "trained", "truncated")}
        info |= {"base": self.base, "setfit_versions": answer["versions"]}
        return Prediction(log_probs, answer["seconds"]["train"], answer["seconds"]["test"], info)


def _requested(rows: Sequence[Row]) -> list[dict[str, str]]:
    return [{"text": text, "label": label_of(row)} for text, row in zip(texts_of(rows), rows, strict=True)]
