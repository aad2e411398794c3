"""Classification: every row has one of a fixed set of labels, each spoken by one or more words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from ..config import suggest
from ..data import Row
from ..errors import ConfigError
from ..types import Example
from ..values import composed, not_text, plain, shown, text_of
from .scored import Normalized, ScoredTask
from .spec import TaskSpec

MAX_WORDS = 20_000  # of all labels
MAX_LENGTH = 10_000  # characters of one
Content = Annotated[str, Field(max_length=MAX_LENGTH)]


class LabelScoring(Normalized):
    """How labels are compared, beside `normalize`.

    Attributes:
        calibration: `contextual` (Zhao et al. 2021, arXiv:2102.09690) subtracts the score that the same prompt gives on
            content-free inputs.
        content_free: those content-free inputs.
        over: the tokens with which a token of an answer competes, in training and answering. `labels`: the tokens with
            which some label's words go on there. `vocabulary`: every token of the base. Null: `labels`, which the
            artifact then records; artifacts without it were trained over the vocabulary.
    """

    calibration: Literal["none", "contextual"] = "none"
    content_free: list[Content] = Field(default_factory=lambda: ["N/A", "", "[MASK]"], min_length=1, max_length=100)
    over: Literal["labels", "vocabulary"] | None = None


class ClassificationSpec(TaskSpec):
    """A task of type `classification`.

    Attributes:
        verbalizer: label → the word or words that stand for it.
        scoring: how labels are compared.
    """

    verbalizer: dict[str, list[str]] = Field(
        default_factory=dict, examples=[{"positive": "positive", "negative": "negative"}]
    )
    scoring: LabelScoring = Field(default_factory=LabelScoring)

    @field_validator("verbalizer", mode="before")
    @classmethod
    def _words_as_lists(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            pairs = [(label, None) for label in value]
        elif isinstance(value, dict):
            pairs = list(value.items())
        else:
            return value
        found: dict[str, Any] = {}
        seen: set[str] = set()
        for label, words in pairs:
            if not_text(label) and not isinstance(label, bool):
                raise ValueError(f"a label is {shown(label)}; expected text, put it in quotes")
            name = text_of(label)
            if composed(name) in seen:
                raise ValueError(f"label {shown(name)} stands twice; keep one")
            seen.add(composed(name))
            found[name] = _words(name, words)
        return found


class Classification(ScoredTask):
    """Rows with a `label` field; the verbalizer gives each label its words."""

    Spec = ClassificationSpec
    head_form = "chosen"
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
            if not words or any(map(self._is_empty, words)):
                raise ConfigError(f"verbalizer.{label} has an empty word")
            if (longest := max(map(len, words))) > MAX_LENGTH:
                raise ConfigError(f"verbalizer.{label} has a word of {longest} characters; at most {MAX_LENGTH}")
            for word in words:
                if owner.get(word) == label:
                    raise ConfigError(f"verbalizer.{label}: {word!r} stands there twice; keep one")
                if word in owner:
                    raise ConfigError(f"verbalizer: {word!r} stands for both {owner[word]!r} and {label!r}")
                owner[word] = label
        self.labels = list(verbalizer)
        self._named = {composed(label): label for label in verbalizer}
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
    def over_labels(self) -> bool:
        """As `scoring.over` says; tasks of format 1 have no such thing."""
        return self.rules > 1 and self.spec.scoring.over != "vocabulary"

    def settled(self, earlier: bool = False) -> Classification:
        """With `scoring.over`; artifacts that do not say it were trained over the vocabulary."""
        if self.spec.scoring.over is not None:
            return self
        over = "vocabulary" if earlier or self.rules < 2 else "labels"
        scoring = self.spec.scoring.model_copy(update={"over": over})
        return type(self)(self.spec.model_copy(update={"scoring": scoring}), self.folder, self.rules)

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
            return f"label is {shown(values['label'])}; expected one of {', '.join(map(repr, self.labels))}"
        return None

    def unlabelled(self, values: dict[str, Any]) -> bool:
        """Whether a row has no label: none, an empty one, or -1 where that is no label of the verbalizer."""
        value = plain(values.get("label"))
        return value is None or (self.gold(values) is None and str(value).strip() in ("", "-1", "-1.0"))

    def remarks(self, splits: Mapping[str, Sequence[Row | Example]]) -> list[tuple[str, str]]:
        """Labels that no training row has."""
        there = {label for row in splits.get("train", ()) if (label := self.gold(row.values)) is not None}
        missing = [label for label in self.labels if label not in there]
        if not there or not missing:
            return []
        names = ", ".join(map(repr, missing[:6])) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
        advice = "it can still be predicted, but is never learned: add rows, or remove it from the verbalizer"
        return [(f"train: no row is labelled {names}", advice)]

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
        """The verbalizer's label that the row has; None when it is missing or not one of them."""
        value = plain(values.get("label"))
        if isinstance(value, bool):
            return self._named.get(text_of(value)) or self._named.get(text_of(value).capitalize())
        if not_text(value):
            return None
        if isinstance(value, float) and value.is_integer():  # a column of whole numbers in which some are missing
            return self._named.get(str(value)) or self._named.get(str(int(value)))
        return self._named.get(composed(str(value)))


def _words(label: str, words: Any) -> Any:
    """A label's words as a list of texts; what is no text stays, and is refused by the model."""
    if words is None:
        return [label]
    if isinstance(words, (list, tuple)):
        return [text_of(word) if isinstance(word, bool) or not not_text(word) else word for word in words]
    return [text_of(words)] if isinstance(words, bool) or not not_text(words) else words
