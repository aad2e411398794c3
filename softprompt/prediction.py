"""What a runtime gives for a row, and what it takes in place of an artifact's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch

from .answers import Outcome
from .artifact import Artifact
from .types import Example


@dataclass(frozen=True)
class Prediction:
    """Answer to one row: the artifact that gave it, the label with all labels' probabilities, or what was written (without).

    Attributes:
        label: the label, what was written, a tag for each word, or the labels of a row that may have several.
        cut: what was written had not ended after `generation.max_new_tokens`.
        truncated: the row's text was longer than the task or the base takes; this answers what was left of it.
        shown: an answer that is neither a label nor one text, by name: `tags` and `spans` of a tagged text, or `labels`
            and `probabilities` of sets of labels.
        agreement: of an ensemble, the share of its members (by weight) whose own best label is `label`; None of one artifact.
    """

    artifact: str
    label: Any
    probabilities: dict[str, float]
    cut: bool = False
    truncated: bool = False
    shown: dict[str, Any] = field(default_factory=dict)
    agreement: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """As written by `softprompt predict`: `label` and `probabilities` (and `agreement`), `text`, or what is `shown`."""
        if self.shown:
            return {"artifact": self.artifact, **self.shown}
        if not self.probabilities:
            return {"artifact": self.artifact, "text": self.label}
        found = {"artifact": self.artifact, "label": self.label, "probabilities": self.probabilities}
        return found if self.agreement is None else {**found, "agreement": self.agreement}


def prediction_of(name: str, rows: Sequence[Example], outcome: Outcome) -> Prediction:
    """The answer of an artifact, or an ensemble, to one row.

    Args:
        rows: the row as each of its prompts reads it.
    """
    probabilities = {label: float(torch.tensor(score).exp()) for label, score in outcome.scores.items()}
    cut = any(row.truncated for row in rows)
    return Prediction(name, outcome.predicted, probabilities, outcome.cut, cut, outcome.shown, outcome.agreement)


@runtime_checkable
class HoldsArtifact(Protocol):
    """What a runtime takes in place of a folder, such as the result of a run."""

    def as_artifact(self) -> Artifact:
        """The artifact, in memory."""
