"""What task types share whose answers are chosen: every possible answer of a row gets a score, the best one is taken."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..config import Strict
from ..data import Row
from ..metrics import metrics_for
from .base import Task


class Normalized(Strict):
    """How candidates of different lengths are compared.

    Attributes:
        normalize: `tokens` divides the log-likelihood by the answer's length; `none` leaves it as it is.
    """

    normalize: Literal["tokens", "none"] = "tokens"


class ScoredTask(Task):
    """A row's candidates are scored; those of one label are summed.

    Attributes:
        spec: has a `scoring` with `normalize`.
        prior: what scores are taken relative to: nothing; the mean of content-free inputs (`contextual`); each candidate's own
            score without the row (`pmi`).
        contrastive: training compares a row's candidates, instead of raising the right one's likelihood alone.
        over_labels: a token of an answer competes with those of the other answers, not with the whole vocabulary.
    """

    form = "chosen"
    metrics: ClassVar[tuple[str, ...]] = tuple(metrics_for("labels"))
    spec: Any

    @property
    def prior(self) -> Literal["none", "contextual", "pmi"]:
        """By default none."""
        return "none"

    @property
    def contrastive(self) -> bool:
        """By default not."""
        return False

    @property
    def over_labels(self) -> bool:
        """By default not."""
        return False

    @property
    def blanks(self) -> list[str]:
        """Content-free inputs, of which a `contextual` prior is the mean."""
        return []

    def label(self, row: Row) -> Hashable:
        """The right label."""
        return self.gold(row.values)

    def label_scores(self, scores: Tensor, lengths: list[int]) -> Tensor:
        """Candidates' log-likelihoods [C] to normalised log-scores of the labels [K]; here each candidate is a label."""
        return self.per_token(scores, lengths).log_softmax(-1)

    def per_token(self, scores: Tensor, lengths: list[int]) -> Tensor:
        """Scores [C] divided by the candidates' lengths, if they are to be."""
        if self.spec.scoring.normalize == "tokens":
            return scores / torch.tensor(lengths, dtype=scores.dtype, device=scores.device)
        return scores

    @abstractmethod
    def label_name(self, values: dict[str, Any], index: int) -> str:
        """What the k-th label score stands for."""

    @abstractmethod
    def gold(self, values: dict[str, Any]) -> str | None:
        """The row's right label, None if it has none."""
