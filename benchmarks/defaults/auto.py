"""The product by `auto`: what somebody gets who names neither a base nor a method."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from softprompt.benchmarks.defaults.contender import Context, Prediction, in_order
from softprompt.benchmarks.defaults.data import label_of, texts_of
from softprompt.data import Row
from softprompt.estimators.classifier import PromptClassifier


@dataclass(frozen=True)
class Auto:
    """`PromptClassifier()` on all labelled rows."""

    name: str = "auto"

    @property
    def settings(self) -> dict[str, Any]:
        """It has none."""
        return {}

    def fit_predict(
        self, train_rows: Sequence[Row], test_rows: Sequence[Row], labels: Sequence[str], seed: int, context: Context
    ) -> Prediction:
        """See `Contender`; bases are loaded before the clock starts."""
        for base in ("minilm", "smollm2"):
            context.base(base)
        began = time.perf_counter()
        classifier = PromptClassifier(seed=seed, verbose=False)
        classifier.fit(texts_of(train_rows), list(map(label_of, train_rows)))
        fitted, began = time.perf_counter() - began, time.perf_counter()
        log_probs = classifier.predict_log_proba(texts_of(test_rows))
        seconds = time.perf_counter() - began
        every = in_order(log_probs, list(map(str, classifier.classes_.tolist())), labels)
        return Prediction(every, fitted, seconds, {"chosen": classifier.summary_["chosen"]})
