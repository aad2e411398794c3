"""Contenders without a language model."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from softprompt.benchmarks.compare.peers.tfidf import TfIdfSpec
from softprompt.benchmarks.defaults.contender import Context, Prediction, in_order
from softprompt.benchmarks.defaults.data import label_of, texts_of
from softprompt.data import Row


@dataclass(frozen=True)
class Majority:
    """Always the commonest label of the labelled rows; probabilities are the labels' shares with one row more of each."""

    name: str = "majority"

    @property
    def settings(self) -> dict[str, Any]:
        """There is nothing to set."""
        return {"name": self.name}

    def fit_predict(
        self, train_rows: Sequence[Row], test_rows: Sequence[Row], labels: Sequence[str], seed: int, context: Context
    ) -> Prediction:
        """See `Contender`."""
        began = time.perf_counter()
        counts = Counter(map(label_of, train_rows))
        shares = np.array([counts[label] + 1 for label in labels]) / (len(train_rows) + len(labels))
        fitted = time.perf_counter()
        log_probs = np.tile(np.log(shares), (len(test_rows), 1))
        return Prediction(log_probs, fitted - began, time.perf_counter() - fitted)


@dataclass(frozen=True)
class TfIdf:
    """Logistic regression on TF-IDF of words and pairs of words."""

    name: str = "tfidf"
    ngrams: tuple[int, int] = (1, 2)
    strength: float = 10.0
    max_iter: int = 2000

    @property
    def settings(self) -> dict[str, Any]:
        """Of both steps."""
        return {"name": self.name, "ngrams": self.ngrams, "strength": self.strength, "max_iter": self.max_iter}

    def fit_predict(
        self, train_rows: Sequence[Row], test_rows: Sequence[Row], labels: Sequence[str], seed: int, context: Context
    ) -> Prediction:
        """See `Contender`."""
        began = time.perf_counter()
        spec = TfIdfSpec(analyzer="word", ngrams=self.ngrams, strength=self.strength, max_iter=self.max_iter)
        model = spec.pipeline()
        model.fit(texts_of(train_rows), [label_of(row) for row in train_rows])
        fitted = time.perf_counter()
        log_probs = in_order(model.predict_log_proba(texts_of(test_rows)), list(model.classes_), labels)
        return Prediction(log_probs, fitted - began, time.perf_counter() - fitted)
