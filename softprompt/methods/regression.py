"""Logistic regressions that a probe is made of, and how their penalty is chosen."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold

from ..types import Example

ENOUGH = 200
"""Rows that were not fitted, from which on one comparison chooses the penalty."""
FOLDS = 5
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
Folds = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Rows:
    """Rows to fit and to judge.

    Attributes:
        features: [B, H].
        gold: [B] classes; or [B, K], 1 of each label that a row has, else 0.
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
    return least_loss(strengths, rows, folds)


def least_loss(strengths: Sequence[float], rows: Rows, folds: Folds) -> float:
    """The inverse penalty with the least log loss over these folds; without folds the one in the middle."""
    if not folds:
        return sorted(strengths)[len(strengths) // 2]
    losses = [sum(_loss(fitted(strength, rows, fit), rows, rest) for fit, rest in folds) for strength in strengths]
    return strengths[int(np.argmin(losses))]


def _folds(gold: np.ndarray, seed: int) -> Folds:
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


def fitted(strength: float, rows: Rows, fit: np.ndarray) -> LogisticRegression:
    """The regression with this inverse penalty on the rows of these indices; scikit-learn refuses a single class."""
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


def over_raw_states(
    model: LogisticRegression, mean: np.ndarray, spread: np.ndarray, answers: int
) -> tuple[np.ndarray, np.ndarray]:
    """A regression on (states − mean) / spread as one on the states themselves: weight [answers, H] and bias [answers]."""
    rows, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
        rows, bias = np.concatenate([-rows, rows]) / 2, np.concatenate([-bias, bias]) / 2
    weight = np.zeros((answers, rows.shape[1]))
    shift = np.full(answers, -1e4)  # a candidate that never is right stays out of reach
    weight[model.classes_] = rows / spread
    shift[model.classes_] = bias - weight[model.classes_] @ mean
    return weight, shift


def standardised(
    features: np.ndarray, gold: np.ndarray, examples: Sequence[Example], train: int, shared: bool
) -> tuple[Rows, np.ndarray, np.ndarray]:
    """Rows to fit and to judge, whose features have mean 0 and spread 1 over the training rows, which stand first.

    Args:
        features: [B, H], of these examples.
        gold: see `Rows`.
        train: how many are training rows.
        shared: all features have one spread.

    Returns:
        the rows, and the mean and the spread [H] that were taken off.
    """
    weights = np.array([example.weight for example in examples], dtype=float)
    mean, spread = mean_and_spread(features[:train], weights[:train])
    if shared:
        spread = shared_spread(spread)
    return Rows((features - mean) / spread, gold, weights), mean, spread


def shared_spread(spread: np.ndarray) -> np.ndarray:
    """The root mean square of all features' spreads in place of each, [H]: the means of rows are scaled by it."""
    return np.full_like(spread, math.sqrt((spread**2).mean()))


def mean_and_spread(features: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each feature over the rows, [H]."""
    mean = weights @ features / weights.sum()
    squares = weights @ (features - mean) ** 2 / max(weights.sum() - 1, 1e-6)
    return mean, np.sqrt(squares) + 1e-6


def fit_labels(strengths: Sequence[float], rows: Rows, train: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A regression for each label, all with the inverse penalty that has the least log loss on rows that were not fitted.

    Args:
        rows: with `gold` [B, K]; the training rows and behind them the dev rows.
        train: how many are training rows.

    Returns:
        weights [K, H] and biases [K].
    """
    strength = _shared_strength(strengths, rows, train, seed)
    return _fitted_labels(strength, rows, np.arange(train))


def _shared_strength(strengths: Sequence[float], rows: Rows, train: int, seed: int) -> float:
    count = len(rows.gold)
    if len(strengths) == 1:
        return strengths[0]
    if count < 2:
        return sorted(strengths)[len(strengths) // 2]
    if count - train >= ENOUGH:
        folds: Folds = [(np.arange(train), np.arange(train, count))]
    else:
        folds = list(KFold(min(FOLDS, count), shuffle=True, random_state=seed).split(rows.features))
        folds = folds[:1] if len(folds[0][1]) >= ENOUGH else folds
    losses = []
    for strength in strengths:
        loss = 0.0
        for fit, rest in folds:
            weight, bias = _fitted_labels(strength, rows, fit)
            logits = rows.features[rest] @ weight.T + bias
            each = np.logaddexp(0, np.where(rows.gold[rest] == 1, -logits, logits)).sum(1)
            loss += float(rows.weights[rest] @ each)
        losses.append(loss)
    return strengths[int(np.argmin(losses))]


def _fitted_labels(strength: float, rows: Rows, fit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights [K, H] and biases [K].

    A label that all of the rows have, or none, gets its log-odds alone, with half a row more on each side.
    """
    gold, weights = rows.gold[fit], rows.weights[fit]
    weight, bias = np.zeros((gold.shape[1], rows.features.shape[1])), np.zeros(gold.shape[1])
    for label in range(gold.shape[1]):
        own = gold[:, label]
        if own.min() == own.max():
            have = weights @ own
            bias[label] = np.log((have + 0.5) / (weights.sum() - have + 0.5))
            continue
        model = fitted(strength, Rows(rows.features, rows.gold[:, label], rows.weights), fit)
        weight[label], bias[label] = model.coef_[0], model.intercept_[0]
    return weight, bias
