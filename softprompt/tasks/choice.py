"""Choice: every row brings its own options, one of which is right (question answering with options)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from string import ascii_uppercase
from typing import Any, ClassVar, Literal

from pydantic import Field

from ..config import suggest
from ..data import Row
from ..errors import ConfigError
from .scored import Normalized, ScoredTask
from .spec import TaskSpec


class ChoiceScoring(Normalized):
    """How options are compared, beside `normalize`.

    Attributes:
        by: `likelihood` of the option's own text behind the row, per token; `letter`: of the letter that names it in
            `{{ options }}`; `pmi`: of its text, relative to what the same template gives it without the row (domain-conditional
            PMI, Holtzman et al. 2021, arXiv:2104.08315); `auto`: the one that does best on dev before anything is learned.
        train: `options` raises the right option above the others (cross-entropy over the options' likelihoods or letters; what
            `pmi` subtracts is no part of the loss); `answer` raises the likelihood of the right one alone, which costs one
            option a row instead of all.
    """

    by: Literal["likelihood", "letter", "pmi", "auto"] = "likelihood"
    train: Literal["options", "answer"] = "options"


class ChoiceSpec(TaskSpec):
    """A task of type `choice`.

    Attributes:
        scoring: how options are compared.
        option: how each line of `{{ options }}` reads, from `letter` and `choice`.
    """

    scoring: ChoiceScoring = Field(default_factory=ChoiceScoring)
    option: str = "{letter}. {choice}"


class Choice(ScoredTask):
    """Rows with `choices` (texts) and `answer` (one of them, its index from 0, or its letter).

    The template may read `options`: all choices, one a line, each behind its letter.
    """

    Spec = ChoiceSpec
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    answer_fields = ("answer",)
    derived: ClassVar[dict[str, str]] = {"options": "choices"}
    needs: ClassVar[dict[str, Any]] = {"choices": ["one", "two"]}
    spec: ChoiceSpec

    def check(self) -> None:
        """Letters must be shown where they are the answers."""
        if self.spec.scoring.by == "letter" and "options" not in self.spec.template.fields:
            raise ConfigError(
                "scoring.by is 'letter', but template.input does not show the lettered options: add {{ options }}"
            )
        try:
            self.spec.option.format(letter="A", choice="x")
        except (KeyError, IndexError, ValueError):
            raise ConfigError(
                f"option {self.spec.option!r} can name {{letter}} and {{choice}} only, e.g. '{{letter}}. {{choice}}'"
            ) from None

    @property
    def prior(self) -> Literal["none", "contextual", "pmi"]:
        """As `scoring.by` says."""
        return "pmi" if self.spec.scoring.by == "pmi" else "none"

    @property
    def contrastive(self) -> bool:
        """Unless the right option alone is learned."""
        return self.spec.scoring.train == "options"

    @property
    def ways(self) -> list[str]:
        """What `scoring.by: auto` chooses from; empty where it is settled."""
        if self.spec.scoring.by != "auto":
            return []
        return ["likelihood", "pmi", *(["letter"] if "options" in self.spec.template.fields else [])]

    def scored_by(self, way: str) -> Choice:
        """The same task with `scoring.by` settled."""
        scoring = self.spec.scoring.model_copy(update={"by": way})
        return type(self)(self.spec.model_copy(update={"scoring": scoring}), self.folder, self.rules)

    def check_input(self, values: dict[str, Any]) -> str | None:
        """Two or more different options must be there."""
        if (problem := super().check_input(values)) is not None:
            return problem
        choices = values.get("choices")
        if choices is None:
            return f"missing field 'choices'{suggest('choices', values)}"
        if not isinstance(choices, (list, tuple)) or len(choices) < 2:
            return f"choices must be a list of two or more options, got {choices!r}"[:200]
        texts = [str(choice).strip() for choice in choices]
        if len(texts) > len(ascii_uppercase):
            return f"there are {len(texts)} choices, at most {len(ascii_uppercase)} have a letter"
        for place, text in enumerate(texts):
            if not text:
                return f"choices[{place}] is empty"
            if (first := texts.index(text)) < place:
                return f"choices[{first}] and choices[{place}] are the same: {text!r}; give each option once"
        return None

    def check_row(self, values: dict[str, Any]) -> str | None:
        """And the right one among them."""
        if (problem := self.check_input(values)) is not None:
            return problem
        if values.get("answer") is None:
            return f"missing field 'answer'{suggest('answer', values)}"
        if self._right(values) is None:
            return (
                f"answer {values['answer']!r} is not among the {len(values['choices'])} choices; give its text, "
                "its index from 0 or its letter"
            )
        return None

    def shown(self, values: dict[str, Any]) -> dict[str, Any]:
        """With `options`."""
        lines = [
            self.spec.option.format(letter=letter, choice=choice)
            for letter, choice in zip(ascii_uppercase, values.get("choices") or (), strict=False)
        ]
        return {**values, "options": "\n".join(lines)}

    def candidates(self, values: dict[str, Any]) -> tuple[list[str], int | None]:
        """The options' texts, or their letters."""
        choices = [str(choice) for choice in values["choices"]]
        words = list(ascii_uppercase[: len(choices)]) if self.spec.scoring.by == "letter" else choices
        return words, self._right(values)

    def floor(self, metric: str, rows: Sequence[dict[str, Any]]) -> tuple[float, str]:
        """One option of each row, drawn at random."""
        sizes = [len(values["choices"]) for values in rows]
        return sum(1 / size for size in sizes) / len(sizes), "guessing"

    def label(self, row: Row) -> Hashable:
        """Where the right option stands, so that no split favours a place."""
        return self._right(row.values)

    def label_name(self, values: dict[str, Any], index: int) -> str:
        """The option's text."""
        return str(values["choices"][index])

    def gold(self, values: dict[str, Any]) -> str | None:
        """The right option's text."""
        place = self._right(values)
        return None if place is None else str(values["choices"][place])

    def _right(self, values: dict[str, Any]) -> int | None:
        """Index of the right option: the answer is its text, its index, or its letter (looked for in this order)."""
        answer, choices = values.get("answer"), [str(choice) for choice in values.get("choices") or ()]
        if answer is None or isinstance(answer, bool) or not choices:
            return None
        text = str(answer)
        if text in choices:
            return choices.index(text)
        if text.strip().isdigit():
            return int(text) if int(text) < len(choices) else None
        letter = ascii_uppercase.find(text.strip()) if len(text.strip()) == 1 else -1
        return letter if 0 <= letter < len(choices) else None
