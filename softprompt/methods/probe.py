"""Linear probe: logistic regression on the frozen base's states. The honest cheap baseline (Alain & Bengio 2016).

It answers "was the knowledge there already?": a learned prompt that does not beat it has learned a classifier, not a prompt.

How features are scaled and which penalties there are was chosen on eight data sets of single sentences (topics, intents, spam,
sentiment; 128 training rows, no dev rows, 500 test rows, four draws). On minilm's means the accuracy was .716, that of
scikit-learn's own settings on bare means .715, and on means of length 1 .671; with 400 rows .751 (.745), with 32 .671 (.665).
One spread for all features was better there than each feature's own (.712); on SmolLM2's state at the cue, where a few
features are very large, each one's own was better (.943 against .938, two data sets).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from ..base import Base
from ..engine import BatchOutput, Engine
from ..errors import ArtifactError, ConfigError, TrainingError
from ..tasks import Task
from ..types import Example, Progress, ignore_progress
from .base import Method, MethodSpec

ENOUGH = 200
"""Rows that were not fitted, from which on one comparison chooses the penalty."""
FOLDS = 5
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


class ProbeSpec(MethodSpec):
    """Settings of `probe`.

    Attributes:
        strengths: inverse L2 penalties to choose from, of features with a mean square of 1.
        pool: what is read of a row: the `last` state, which on a causal base is the cue's, or the `mean` of all its tokens'
            (needs a base that reads both ways). Null: the mean where the base reads both ways, else the last; training
            writes which.
        instruction: keep the task's instruction in front of the text (null: unless it would be averaged along).
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
                f"method.pool is mean, but base {base.name!r} reads forwards: only its last state has seen the whole row; "
                "leave it out, or take an encoder such as minilm"
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

        Raises:
            TrainingError: the candidates differ per row, or there is only one label.
        """
        if any(example.candidates != train[0].candidates for example in train):
            raise TrainingError(
                "method probe needs the same answers for every row; take infix or soft for options per row"
            )
        gold = np.array([example.gold for example in [*train, *dev]])
        if len(set(gold[: len(train)])) < 2:
            raise TrainingError("method probe needs training rows of at least two labels")
        features = engine.features([*train, *dev], progress, self.averaged).double().numpy()
        weights = np.array([example.weight for example in [*train, *dev]], dtype=float)
        mean, spread = _mean_and_spread(features[: len(train)], weights[: len(train)])
        if self.averaged:
            spread = np.full_like(spread, math.sqrt((spread**2).mean()))
        rows = Rows((features - mean) / spread, gold, weights)
        strength = choose_strength(self.spec.strengths, rows, len(train), seed)
        model = _fitted(strength, rows, np.arange(len(train)))
        self._take(model, mean, spread, len(train[0].candidates))

    def _take(self, model: LogisticRegression, mean: np.ndarray, spread: np.ndarray, answers: int) -> None:
        """The regression's weights [answers, H] and bias over features as the base gives them."""
        rows, bias = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
            rows, bias = np.concatenate([-rows, rows]) / 2, np.concatenate([-bias, bias]) / 2
        weight = np.zeros((answers, rows.shape[1]))
        shift = np.full(answers, -1e4)  # a candidate that never is right stays out of reach
        weight[model.classes_] = rows / spread
        shift[model.classes_] = bias - weight[model.classes_] @ mean
        self.weight, self.bias = torch.from_numpy(weight).float(), torch.from_numpy(shift).float()

    def score(self, batch: BatchOutput, candidates: Sequence[Sequence[tuple[int, ...]]]) -> list[Tensor]:
        """Log-probabilities of the candidates by the regression."""
        states = (batch.pooled if self.averaged else batch.last).float()
        logits = states @ self.weight.to(states.device).T + self.bias.to(states.device)
        return list(logits.log_softmax(-1))

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


@dataclass(frozen=True)
class Rows:
    """Rows to fit and to judge.

    Attributes:
        features: [B, H].
        gold: [B] classes.
        weights: [B]; a row of weight 2 counts as if it stood there twice.
    """

    features: np.ndarray
    gold: np.ndarray
    weights: np.ndarray


def choose_strength(strengths: Sequence[float], rows: Rows, train: int, seed: int) -> float:
    """The inverse penalty with the least log loss on rows that were not fitted.

    Args:
        rows: the training rows and behind them the dev rows.
        train: how many are training rows.

    Returns:
        with too few rows for a comparison the one in the middle.
    """
    if len(strengths) == 1:
        return strengths[0]
    if len(rows.gold) - train >= ENOUGH:
        folds = [(np.arange(train), np.arange(train, len(rows.gold)))]
    else:
        folds = _folds(rows.gold, seed)
    if not folds:
        return sorted(strengths)[len(strengths) // 2]
    losses = [sum(_loss(_fitted(strength, rows, fit), rows, rest) for fit, rest in folds) for strength in strengths]
    return strengths[int(np.argmin(losses))]


def _folds(gold: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to fit and rows to judge, several times, over the classes with two rows or more: each is in every fit."""
    classes, counts = np.unique(gold, return_counts=True)
    some = np.flatnonzero(np.isin(gold, classes[counts > 1]))
    if (counts > 1).sum() < 2:
        return []
    splitter = StratifiedKFold(min(FOLDS, int(counts.max())), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than folds is judged in some of them
        folds = [(some[fit], some[rest]) for fit, rest in splitter.split(some, gold[some])]
    return folds[:1] if len(folds[0][1]) >= ENOUGH else folds


def _fitted(strength: float, rows: Rows, fit: np.ndarray) -> LogisticRegression:
    model = LogisticRegression(C=strength, max_iter=2000)
    return model.fit(rows.features[fit], rows.gold[fit], sample_weight=rows.weights[fit])


def _loss(model: LogisticRegression, rows: Rows, judged: np.ndarray) -> float:
    """Σ −log-probability of the right classes; one that was not fitted counts alike for every model."""
    seen = judged[np.isin(rows.gold[judged], model.classes_)]
    if not len(seen):
        return 0.0
    logp = model.predict_log_proba(rows.features[seen])
    right = logp[np.arange(len(logp)), np.searchsorted(model.classes_, rows.gold[seen])]
    return -float(rows.weights[seen] @ right)


def _mean_and_spread(features: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each feature over the rows, [H]."""
    mean = weights @ features / weights.sum()
    squares = weights @ (features - mean) ** 2 / max(weights.sum() - 1, 1e-6)
    return mean, np.sqrt(squares) + 1e-6
