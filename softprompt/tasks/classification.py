"""Classification: every row has one of a fixed set of labels, each spoken by one or more words."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from ..config import suggest
from ..errors import ConfigError
from .scored import Normalized, ScoredTask
from .spec import TaskSpec

MAX_WORDS = 20_000  # of all labels


class LabelScoring(Normalized):
    """How labels are compared, beside `normalize`.

    Attributes:
        calibration: `contextual` (Zhao et al. 2021, arXiv:2102.09690) subtracts the score that the same prompt gives on
            content-free inputs.
        content_free: those inputs.
    """

    calibration: Literal["none", "contextual"] = "none"
    content_free: list[str] = Field(default_factory=lambda: ["N/A", "", "[MASK]"], min_length=1)


class ClassificationSpec(TaskSpec):
    """A task of type `classification`.

    Attributes:
        verbalizer: label → its word or words.
        scoring: how labels are compared.
    """

    verbalizer: dict[str, list[str]] = Field(default_factory=dict)
    scoring: LabelScoring = Field(default_factory=LabelScoring)

    @field_validator("verbalizer", mode="before")
    @classmethod
    def _words_as_lists(cls, value: Any) -> Any:
        if isinstance(value, list):
            value = {str(label): str(label) for label in value}
        if isinstance(value, dict):
            # YAML reads yes/no and 0/1 as other types; a label is always text
            return {_text(label): _words(label, words) for label, words in value.items()}
        return value


class Classification(ScoredTask):
    """Rows with a `label` field; the verbalizer gives each label its words."""

    Spec = ClassificationSpec
    answer_fields = ("label",)
    spec: ClassificationSpec

    def check(self) -> None:
        """At least two labels, no word for two of them."""
        verbalizer = self.spec.verbalizer
        if len(verbalizer) < 2:
            raise ConfigError("verbalizer needs at least two labels, e.g. {positive: positive, negative: negative}")
        if (count := sum(map(len, verbalizer.values()))) > MAX_WORDS:
            raise ConfigError(
                f"verbalizer has {count} words, each of which is scored for each row; at most {MAX_WORDS}"
            )
        owner: dict[str, str] = {}
        for label, words in verbalizer.items():
            if not words or not all(word.strip() for word in words):
                raise ConfigError(f"verbalizer.{label} has an empty word")
            for word in words:
                if word in owner:
                    raise ConfigError(f"verbalizer: {word!r} stands for both {owner[word]!r} and {label!r}")
                owner[word] = label
        self.labels = list(verbalizer)
        self._words = [word for words in verbalizer.values() for word in words]
        self._sizes = [len(words) for words in verbalizer.values()]
        self._first = dict(zip(verbalizer, accumulate([0, *self._sizes]), strict=False))

    @property
    def words(self) -> list[str]:
        """All words of all labels."""
        return self._words

    @property
    def prior(self) -> Literal["none", "contextual", "pmi"]:
        """As `scoring.calibration` says."""
        return self.spec.scoring.calibration

    @property
    def blanks(self) -> list[str]:
        """Content-free inputs."""
        return self.spec.scoring.content_free

    def check_row(self, values: dict[str, Any]) -> str | None:
        """Fields and label must be there, and the label one of the verbalizer's."""
        if (problem := self.check_input(values)) is not None:
            return problem
        if "label" not in values:
            return f"missing field 'label'{suggest('label', values)}"
        if self.gold(values) is None:
            return f"label {values['label']!r} is not one of {', '.join(map(repr, self.labels))}"
        return None

    def candidates(self, values: dict[str, Any]) -> tuple[list[str], int | None]:
        """All words of all labels; right is the first word of the row's label."""
        gold = self.gold(values)
        return self._words, None if gold is None else self._first[gold]

    def label_scores(self, scores: Tensor, lengths: list[int]) -> Tensor:
        """Log of the summed (length-normalised) probability of each label's words, normalised over labels, [K]."""
        scores = self.per_token(scores, lengths)
        return torch.stack([own.logsumexp(0) for own in scores.split(self._sizes)]).log_softmax(0)

    def label_name(self, values: dict[str, Any], index: int) -> str:
        """The k-th label."""
        return self.labels[index]

    def gold(self, values: dict[str, Any]) -> str | None:
        """The row's label as text; None when it is missing or not one of ours."""
        value = values.get("label")
        if isinstance(value, bool):
            value = "true" if value else "false"
        return str(value) if value is not None and str(value) in self.spec.verbalizer else None


def _text(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _words(label: Any, words: Any) -> Any:
    if words is None:
        return [_text(label)]
    if isinstance(words, (str, int, float, bool)):
        return [_text(words)]
    return words
