"""Classification: every row has one of a fixed set of labels, each spoken by one or more words."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from ..config import suggest
from ..data import Row
from ..errors import ConfigError
from .base import Task


class Classification(Task):
    """Rows with a `label` field; the verbalizer gives each label its words."""

    answer_fields = ("label",)

    def check(self) -> None:
        """At least two labels, no word for two of them."""
        verbalizer = self.spec.verbalizer
        if len(verbalizer) < 2:
            raise ConfigError("verbalizer needs at least two labels, e.g. {positive: positive, negative: negative}")
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
        self._owner = torch.tensor([k for k, words in enumerate(verbalizer.values()) for _ in words])
        self._first = [self._words.index(words[0]) for words in verbalizer.values()]

    def check_row(self, values: dict[str, Any]) -> str | None:
        """Fields and label must be there, and the label one of the verbalizer's."""
        if (problem := self.check_input(values)) is not None:
            return problem
        if "label" not in values:
            return f"missing field 'label'{suggest('label', values)}"
        if self.gold_label(values) is None:
            return f"label {values['label']!r} is not one of {', '.join(map(repr, self.labels))}"
        return None

    def label(self, row: Row) -> Hashable:
        """The row's label."""
        return self.gold_label(row.values)

    def answer_word(self, values: dict[str, Any]) -> str:
        """The first word of the row's label."""
        words, gold = self.candidates(values)
        if gold is None:
            raise ConfigError(f"a demonstration needs a label, one of {', '.join(map(repr, self.labels))}")
        return words[gold]

    def candidates(self, values: dict[str, Any]) -> tuple[list[str], int | None]:
        """All words of all labels; right is the first word of the row's label."""
        gold = self.gold_label(values)
        return self._words, None if gold is None else self._first[self.labels.index(gold)]

    def label_scores(self, scores: Tensor, lengths: list[int]) -> Tensor:
        """Log of the summed (length-normalised) probability of each label's words, normalised over labels, [K]."""
        if self.spec.scoring.normalize == "tokens":
            scores = scores / torch.tensor(lengths, dtype=scores.dtype)
        found = torch.stack([scores[self._owner == k].logsumexp(0) for k in range(len(self.labels))])
        return found.log_softmax(0)

    def label_name(self, values: dict[str, Any], index: int) -> str:
        """The k-th label."""
        return self.labels[index]

    def gold_label(self, values: dict[str, Any]) -> str | None:
        """The row's label as text; None when it is missing or not one of ours."""
        value = values.get("label")
        if isinstance(value, bool):
            value = "true" if value else "false"
        return str(value) if value is not None and str(value) in self.spec.verbalizer else None
