"""Linear probe: logistic regression on the frozen base's state at the cue. The honest cheap baseline (Alain & Bengio 2016).

It answers "was the knowledge there already?": a learned prompt that does not beat it has learned a classifier, not a prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from ..base import Base
from ..engine import BatchOutput, Engine
from ..errors import ArtifactError, TrainingError
from ..tasks import Task
from ..types import Example, Progress, ignore_progress
from .base import Method, MethodSpec


class ProbeSpec(MethodSpec):
    """Settings of `probe`.

    Attributes:
        strengths: inverse L2 penalties to choose from on dev.
        instruction: keep the task's instruction in front of the text.
    """

    strengths: Annotated[tuple[float, ...], Field(max_length=100)] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    instruction: bool = True


class Probe(Method):
    """Each row runs once; the regression itself takes seconds."""

    title = "logistic regression on the frozen base's features at the cue; each row is run once"
    Spec = ProbeSpec
    stores = "head"
    sums_over_tokens = False
    spec: ProbeSpec
    weight: Tensor
    bias: Tensor

    def solve(
        self,
        engine: Engine,
        train: Sequence[Example],
        dev: Sequence[Example],
        task: Task,
        seed: int,
        progress: Progress = ignore_progress,
    ) -> None:
        """Fit on train, choose the penalty on dev.

        Raises:
            TrainingError: the candidates differ per row, or a candidate never is right.
        """
        if any(example.candidates != train[0].candidates for example in train):
            raise TrainingError(
                "method probe needs the same answers for every row; take infix or soft for options per row"
            )
        features = engine.features([*train, *dev], progress)
        gold = np.array([example.gold for example in [*train, *dev]])
        if len(set(gold[: len(train)])) < 2:
            raise TrainingError("method probe needs training rows of at least two labels")
        weights = None if all(example.weight == 1 for example in train) else [example.weight for example in train]
        mean, spread = _mean_and_spread(features[: len(train)], weights)
        scaled = ((features - mean) / spread).numpy()
        best: tuple[float, LogisticRegression] | None = None
        for strength in self.spec.strengths:
            model = LogisticRegression(C=strength, max_iter=2000)
            model.fit(scaled[: len(train)], gold[: len(train)], sample_weight=weights)
            value = model.score(scaled[len(train) :], gold[len(train) :]) if dev else -strength
            if best is None or value > best[0]:
                best = (value, model)
        assert best is not None
        model = best[1]
        rows = torch.from_numpy(model.coef_).float()
        bias = torch.from_numpy(model.intercept_).float()
        if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
            rows, bias = torch.cat([-rows, rows]) / 2, torch.cat([-bias, bias]) / 2
        weight = torch.zeros(len(train[0].candidates), rows.shape[1])
        shift = torch.full((len(weight),), -math.inf)
        for place, index in enumerate(model.classes_):
            weight[index] = rows[place] / spread
            shift[index] = bias[place] - (weight[index] @ mean)
        self.weight, self.bias = weight, shift.clamp_min(-1e4)  # a candidate that never is right stays out of reach

    def score(self, batch: BatchOutput, candidates: Sequence[Sequence[tuple[int, ...]]]) -> list[Tensor]:
        """Log-probabilities of the candidates by the regression."""
        logits = batch.last.float() @ self.weight.to(batch.last.device).T + self.bias.to(batch.last.device)
        return list(logits.log_softmax(-1))

    def export(self) -> dict[str, Tensor]:
        """`weight` [C, H] and `bias` [C] over raw features."""
        return {"weight": self.weight, "bias": self.bias}

    def restore(self, tensors: dict[str, Tensor], base: Base) -> None:
        """Take them back after checking the width."""
        weight, bias = tensors.get("weight"), tensors.get("bias")
        fits = weight is not None and weight.dim() == 2 and weight.shape[1] == base.shape.hidden_size
        if weight is None or bias is None or len(tensors) != 2 or not fits or bias.shape != weight.shape[:1]:
            raise ArtifactError(
                f"a probe stores weight [C, {base.shape.hidden_size}] and bias [C], the artifact holds "
                + ", ".join(f"{key} {list(value.shape)}" for key, value in sorted(tensors.items()))
            )
        self.weight, self.bias = weight.clone(), bias.clone()
        self.answers = len(bias)


def _mean_and_spread(features: Tensor, weights: Sequence[float] | None) -> tuple[Tensor, Tensor]:
    """Of each feature over the rows, [H]; a row of weight 2 counts as if it stood there twice."""
    if weights is None:
        return features.mean(0), features.std(0) + 1e-6
    share = features.new_tensor(weights)[:, None]
    mean = (share * features).sum(0) / share.sum()
    squares = (share * (features - mean) ** 2).sum(0) / (share.sum() - 1).clamp_min(1e-6)
    return mean, squares.sqrt() + 1e-6
