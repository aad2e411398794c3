"""Linear probe: logistic regression on the frozen base's states. The honest cheap baseline (Alain & Bengio 2016).

It answers "was the knowledge there already?": a learned prompt that does not beat it has learned a classifier, not a prompt.

The scaling of features and the penalties were chosen on eight data sets of single sentences: topics, intents, spam,
sentiment. Each had 128 training rows, no dev rows, 500 test rows and four draws. On minilm's means the accuracy was
.716. scikit-learn's own settings gave .715 on bare means and .671 on means of length 1. With 400 rows it was .751
(scikit-learn: .745), with 32 rows .671 (.665). On these means one spread for all features was better than each
feature's own (.712). On SmolLM2's state at the cue a few features are very large, and each one's own spread was better
(.943 against .938, two data sets).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ..base import Base
from ..engine import BatchOutput, Engine
from ..errors import ArtifactError, ConfigError, TrainingError
from ..tasks import Task
from ..types import Example, Progress, ignore_progress
from .base import Method, MethodSpec
from .regression import STRENGTHS, choose_strength, fit_labels, fitted, over_raw_states, standardised


class ProbeSpec(MethodSpec):
    """Settings of `probe`.

    Attributes:
        strengths: inverse L2 penalties to choose from, of features with a mean square of 1.
        pool: the state that is read from a row. `last` is the last token's, on a causal base the cue's. `mean` is the
            mean over all tokens and needs a bidirectional base. Null: `mean` on a bidirectional base, else `last`; the
            artifact records which.
        instruction: keep the task's instruction in front of the text (null: yes with `last`, no with `mean`).
    """

    strengths: Annotated[tuple[float, ...], Field(min_length=1, max_length=100)] = STRENGTHS
    pool: Literal["last", "mean"] | None = None
    instruction: bool | None = None


class Probe(Method):
    """Each row runs once; the regression itself takes seconds."""

    title = "logistic regression on the frozen base's states: the cue's, or their mean; each row is run once"
    Spec = ProbeSpec
    stores = "head"
    sums_over_tokens = False
    spec: ProbeSpec
    weight: Tensor
    bias: Tensor

    def settle(self, base: Base) -> None:
        """Which states are read."""
        pool = self.spec.pool or ("mean" if base.bidirectional else "last")
        if pool == "mean" and not base.bidirectional:
            raise ConfigError(
                f"method.pool is mean, but base {base.name!r} is causal, so only its last state has seen the whole row; "
                "leave it out, or use an encoder such as minilm"
            )
        self.spec = self.spec.model_copy(update={"pool": pool})
        self.averaged = pool == "mean"

    def solve(
        self,
        engine: Engine,
        train: Sequence[Example],
        dev: Sequence[Example],
        task: Task,
        seed: int,
        progress: Progress = ignore_progress,
    ) -> None:
        """Fit on train. The penalty is chosen on dev; where that is small, by cross-validation over train and dev.

        Where a row has a set of labels, each label is fitted by itself, with one penalty for all.

        Raises:
            TrainingError: the candidates differ per row, or there is only one label.
        """
        if any(example.candidates != train[0].candidates for example in train):
            raise TrainingError(
                "method probe needs the same answers for every row; use infix or soft for options per row"
            )
        sets = [example.target for example in [*train, *dev] if example.target is not None]
        one: list[Any] = [example.gold for example in [*train, *dev]]
        gold = np.array(sets or one)
        if not train or (not sets and len(set(gold[: len(train)])) < 2):
            raise TrainingError("method probe needs training rows of at least two labels")
        features = engine.features([*train, *dev], progress, self.averaged).double().numpy()
        rows, mean, spread = standardised(features, gold, [*train, *dev], len(train), self.averaged)
        if sets:
            weight, bias = fit_labels(self.spec.strengths, rows, len(train), seed)
            self._keep(weight / spread, bias - weight / spread @ mean)
            return
        strength = choose_strength(self.spec.strengths, rows, len(train), seed)
        model = fitted(strength, rows, np.arange(len(train)))
        self._keep(*over_raw_states(model, mean, spread, len(train[0].candidates)))

    def _keep(self, weight: np.ndarray, bias: np.ndarray) -> None:
        self.weight, self.bias = torch.from_numpy(weight).float(), torch.from_numpy(bias).float()

    def score(self, batch: BatchOutput, candidates: Sequence[Sequence[tuple[int, ...]]]) -> list[Tensor]:
        """Log-probabilities of the candidates by the regression."""
        return list(self.classify(batch).log_softmax(-1))

    def classify(self, batch: BatchOutput) -> Tensor:
        """Logits [B, K] of the regression."""
        states = (batch.pooled if self.averaged else batch.last).float()
        return states @ self.weight.to(states.device).T + self.bias.to(states.device)

    def export(self) -> dict[str, Tensor]:
        """`weight` [C, H] and `bias` [C] over raw features."""
        return {"weight": self.weight, "bias": self.bias}

    def restore(self, tensors: dict[str, Tensor], base: Base) -> None:
        """Take them back after checking the width.

        Artifacts that do not say `pool` were trained on what a null means.
        """
        self.settle(base)
        weight, bias = tensors.get("weight"), tensors.get("bias")
        fits = weight is not None and weight.dim() == 2 and weight.shape[1] == base.shape.hidden_size
        if weight is None or bias is None or len(tensors) != 2 or not fits or bias.shape != weight.shape[:1]:
            raise ArtifactError(
                f"a probe stores weight [C, {base.shape.hidden_size}] and bias [C], the artifact holds "
                + ", ".join(f"{key} {list(value.shape)}" for key, value in sorted(tensors.items()))
            )
        self.weight, self.bias = weight.clone(), bias.clone()
        self.answers = len(bias)
