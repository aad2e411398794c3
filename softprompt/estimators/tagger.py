"""A tagger of words: names, parts of addresses, whatever stands in a text and has a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..data import Row
from ..errors import InputError
from ..metrics.spans import OUTSIDE, label_of
from ..tasks import Task
from ..tasks.proposed import Kind
from ..values import kind, plain
from .base import own_errors
from .fitted import Fitted
from .generator import PromptGenerator
from .inputs import TEXT, listed, read_items, refuse_all
from .reading import Reads

TOKENS = "tokens"


class PromptTagger(PromptGenerator):
    """Give each word of a text a tag, with a prompt that is learned on a frozen base.

    X is a list of lists of words, or a list of texts.

    In y a list of words has a tag for each word: `B-person`, `I-person`, `O`, or labels without prefixes. A text has
    its entities, in characters: [{"start": 0, "end": 3, "label": "person"}]. `predict` gives the same.

    Args:
        base, method, lr, epochs, seed, dev, verbose: see `PromptClassifier`.

    Attributes:
        classes_: the tags, in the order of the head's logits.
    """

    kind: ClassVar[Kind] = "tagging"

    def __init__(
        self,
        base: Any = "auto",
        method: Any = "auto",
        *,
        lr: float | None = None,
        epochs: int | None = None,
        seed: int = 0,
        dev: Any = "auto",
        verbose: Any = "auto",
    ) -> None:
        super().__init__(base, method, lr=lr, epochs=epochs, seed=seed, dev=dev, verbose=verbose)
        del self.instruction  # a head reads the words by themselves

    def predict(self, X: Any) -> Any:
        """Of each list of words its tags, of each text its entities, with their texts.

        Raises:
            NotFittedError: nothing was learned yet.
            InputError: X cannot be read.
        """
        with own_errors():
            asked, outcomes = self._answered(X)
        return [
            outcome.predicted if TOKENS in row.values else outcome.shown["spans"]
            for row, outcome in zip(asked, outcomes, strict=True)
        ]

    def _first(self, X: Any) -> tuple[Reads, list[dict[str, Any]]]:
        reads = Reads({TEXT: TEXT}, True, False)
        return reads, self._values(X, reads)

    def _values(self, X: Any, reads: Reads, name: str = "X") -> list[dict[str, Any]]:
        """Each row's `tokens`, or its `text`."""
        rows: list[dict[str, Any]] = []
        problems = []
        for place, item in enumerate(read_items(X, name)):
            value = plain(item)
            if hasattr(value, "items"):
                value = value.get(TOKENS, value.get(TEXT))
            if isinstance(value, (list, tuple)):
                rows.append({TOKENS: list(value)})
            elif isinstance(value, str):
                rows.append({TEXT: value})
            else:
                problems.append(f"{name}[{place}] is {kind(value)}; expected a text, or a list of words")
        refuse_all(problems, len(rows) + len(problems), "rows")
        if not rows:
            raise InputError(f"{name} is empty (0 samples); {type(self).__name__} needs a minimum of 1 text")
        return rows

    def _read_answers(self, y: Any, name: str = "y") -> list[Any]:
        """Of each row its tags, or its entities."""
        answers = [plain(value) for value in listed(y, type(self).__name__)]
        problems = [
            f"{name}[{place}] is {kind(answer)}; expected a list of tags, or of entities"
            for place, answer in enumerate(answers)
            if not isinstance(answer, (list, tuple))
        ]
        refuse_all(problems, len(answers), "answers")
        return answers

    def _proposed(self, reads: Reads, answers: list[Any]) -> Task:
        return Task.load(self._settings(reads, tags_of(answers)))

    def _rows(
        self, values: list[dict[str, Any]], answers: list[Any], weights: list[float], name: str = "X"
    ) -> list[Row]:
        together = zip(values, answers, weights, strict=True)
        return [
            Row({**row, "tags" if TOKENS in row else "entities": list(answer)}, f"{name}[{place}]", weight)
            for place, (row, answer, weight) in enumerate(together)
        ]

    def _take(self, fitted: Fitted, reads: Reads) -> None:
        super()._take(fitted, reads)
        self.classes_ = np.array(fitted.task.spec.tags)  # type: ignore[attr-defined]  # of a tagging


def tags_of(answers: Sequence[Any]) -> list[str]:
    """All tags of rows, `O` first, those of a label together; of entities both that they need.

    Raises:
        InputError: fewer than two.
    """
    found: set[str] = set()
    for answer in answers:
        for one in answer:
            if isinstance(one, dict):
                found |= {OUTSIDE, f"B-{one.get('label')}", f"I-{one.get('label')}"}
            elif isinstance(one, str):
                found.add(one)
    tags = sorted(found, key=lambda tag: (tag != OUTSIDE, label_of(tag)[1] or "", tag))
    if len(tags) < 2:
        raise InputError(f"y has one class of tags only ({', '.join(tags) or 'none'}); give rows with two or more")
    return tags
