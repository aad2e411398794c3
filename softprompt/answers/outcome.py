"""What came of rows: what was answered, how likely the right answer was, and the metric over all of them with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError
from ..metrics import Estimate, estimate

LIKELIHOOD = "log_likelihood"
"""Name of the metric that is the mean log-probability of the right answers, in nats."""


@dataclass(frozen=True)
class Outcome:
    """The result of one row.

    Attributes:
        where: `file:line`.
        gold: the right label, the texts that are right, or the set of right labels; None when the row has none.
        predicted: the best label, the generated text, a tag for each word, or the set of chosen labels.
        scores: each label's log-score, normalised over labels unless they are decided one by one; empty for generated
            answers.
        nll: −log-score of the right label, or of the right answer's tokens; None where there is none.
        weight: weight of `nll` in a mean: 1 for a label, else the number of tokens or decisions.
        cut: the generated text had not ended after `max_new_tokens`.
        tokens: of the right answer, where answers are written; 0 where there is none.
        shown: what users see of an answer that is neither a label nor one text, by name.
        agreement: of an ensemble, the share of its members (by weight) whose own best label is the answer; None of one
            artifact.
    """

    where: str
    gold: Any
    predicted: Any
    scores: dict[str, float] = field(default_factory=dict)
    nll: float | None = None
    weight: int = 1
    cut: bool = False
    tokens: int = 0
    shown: dict[str, Any] = field(default_factory=dict)
    agreement: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """As written to JSON."""
        found = {"where": self.where, "gold": self.gold, "predicted": self.predicted}
        if self.scores:
            found["scores"] = self.scores
        return found if self.agreement is None else {**found, "agreement": self.agreement}


@dataclass(frozen=True)
class Evaluation:
    """Outcomes of labelled rows, in their order.

    Attributes:
        estimate: the task's metric.
        nll: mean −log-score of the right labels, or of the right answers' tokens, over rows that have one (0 if none
            has). It breaks ties between equal metrics.
        members: of an ensemble, what each of its members has answered to the same rows.
    """

    estimate: Estimate
    nll: float
    outcomes: list[Outcome]
    members: tuple[Evaluation, ...] = ()


def summarize(metric: str, outcomes: list[Outcome]) -> Evaluation:
    """The metric over outcomes.

    Raises:
        DataError: no rows, or a row without a label.
    """
    if not outcomes:
        raise DataError("there are no rows to evaluate")
    golds = [outcome.gold for outcome in outcomes if outcome.gold is not None]
    if len(golds) < len(outcomes):
        first = next(outcome.where for outcome in outcomes if outcome.gold is None)
        raise DataError(f"{first}: the row has no label to evaluate against ({len(outcomes) - len(golds)} such rows)")
    known = [(outcome.nll, outcome.weight) for outcome in outcomes if outcome.nll is not None]
    nlls, weights = [loss for loss, _ in known], [weight for _, weight in known]
    nll = sum(nlls) / sum(weights) if known else 0.0
    if metric == LIKELIHOOD:
        return Evaluation(_likelihood(nlls, weights), nll, outcomes)
    return Evaluation(estimate(metric, golds, [outcome.predicted for outcome in outcomes]), nll, outcomes)


def _likelihood(nlls: Sequence[float], weights: Sequence[int]) -> Estimate:
    """Mean log-likelihood of a token; its interval from the spread of rows (linearised ratio, Cochran 1977, §2.11)."""
    tokens, losses = np.array(weights, dtype=float), np.array(nlls)
    mean = losses.sum() / tokens.sum()
    spread = (losses - mean * tokens).std(ddof=1) / tokens.mean() if len(nlls) > 1 else 0.0
    half = 1.96 * spread / math.sqrt(len(nlls))
    return Estimate(LIKELIHOOD, float(-mean), (float(-mean - half), float(-mean + half)), len(nlls))
