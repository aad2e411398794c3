"""The contract of a contender: it learns from labelled rows and answers test rows, by its own defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from softprompt.base import Base
from softprompt.data import Row
from softprompt.estimators.shared import base_of


@dataclass(frozen=True)
class Prediction:
    """What a contender says of the test rows.

    Attributes:
        log_probs: [n, K], each row normalised over the labels in their order; −inf where a label is ruled out.
        fit_seconds: from labelled rows to what answers; loading a base does not count.
        predict_seconds: of all test rows.
        info: what else a record should hold, as JSON takes it. `learned`: the product trained a method by gradients.
    """

    log_probs: np.ndarray
    fit_seconds: float
    predict_seconds: float
    info: dict[str, Any] = field(default_factory=dict)


class Context:
    """What the runs of one process share: each base, loaded once."""

    def __init__(self) -> None:
        self.bases: dict[str, Base] = {}

    def base(self, name: str) -> Base:
        """The base of this name.

        Raises:
            BaseModelError: see `Base.load`.
        """
        if name not in self.bases:
            self.bases[name] = base_of(name)  # estimators of this process have the same one
        return self.bases[name]


class Contender(Protocol):
    """A way to classify texts that is measured as a user gets it."""

    @property
    def name(self) -> str:
        """In records and tables; part of a file's name."""

    @property
    def settings(self) -> dict[str, Any]:
        """What distinguishes it; another value makes a record of earlier settings unusable."""

    def fit_predict(
        self, train_rows: Sequence[Row], test_rows: Sequence[Row], labels: Sequence[str], seed: int, context: Context
    ) -> Prediction:
        """Learn from all labelled rows, then answer the test rows.

        Args:
            train_rows: with `text` and `label`; a contender that needs dev rows takes them from these.
            labels: all K of the data set, in the order of the log-probabilities.
            seed: decides all that is random.
        """


def in_order(log_probs: np.ndarray, known: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Log-probabilities [n, C] of the labels that a model knows as those of all labels [n, K], −inf for the others."""
    every = np.full((len(log_probs), len(labels)), -np.inf)
    every[:, [labels.index(label) for label in known]] = log_probs
    return every
