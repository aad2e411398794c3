"""Choice: every row brings its own options, one of which is right (question answering with options)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from string import Formatter, ascii_uppercase
from typing import Any, ClassVar, Literal

from pydantic import Field

from ..config import suggest
from ..data import Row
from ..errors import ConfigError
from ..storage import canonical_json
from ..types import Example
from ..values import composed, kind, not_text, plain, shown
from .scored import Normalized, ScoredTask
from .spec import TaskSpec

_ROWS = 8  # of which the right option stands at one place by no chance


class ChoiceScoring(Normalized):
    """How options are compared, beside `normalize`.

    Attributes:
        by: `likelihood` compares the likelihood of the options' own texts behind the row, per token. `letter` compares
            that of the letters that name them in `{{ options }}`. `pmi` compares that of their texts, relative to the
            same template without the row (domain-conditional PMI, Holtzman et al. 2021, arXiv:2104.08315). `auto` is
            the best of these on dev before anything is learned.
        train: `options` raises the right option above the others: cross-entropy over the options' likelihoods or
            letters, without the term that `pmi` subtracts. `answer` raises the likelihood of the right option alone,
            and so runs one option a row instead of all.
    """

    by: Literal["likelihood", "letter", "pmi", "auto"] = "likelihood"
    train: Literal["options", "answer"] = "options"


class ChoiceSpec(TaskSpec):
    """A task of type `choice`.

    Attributes:
        scoring: how options are compared.
        option: format of each line of `{{ options }}`, with `letter` and `choice`.
    """

    scoring: ChoiceScoring = Field(default_factory=ChoiceScoring)
    option: str = Field(default="{letter}. {choice}", max_length=1000)


class Choice(ScoredTask):
    """Rows with `choices` (texts) and `answer`: a number is the index from 0; a text is one of them, else its index or letter.

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
        self._option = _pieces(self.spec.option)

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
        """What `scoring.by: auto` chooses from; empty where it names one."""
        if self.spec.scoring.by != "auto":
            return []
        return ["likelihood", "pmi", *(["letter"] if "options" in self.spec.template.fields else [])]

    def scored_by(self, way: str) -> Choice:
        """The same task with `scoring.by` resolved."""
        scoring = self.spec.scoring.model_copy(update={"by": way})
        return type(self)(self.spec.model_copy(update={"scoring": scoring}), self.folder, self.rules)

    def check_input(self, values: dict[str, Any]) -> str | None:
        """Two or more options must be there."""
        if (problem := super().check_input(values)) is not None:
            return problem
        choices = values.get("choices")
        if choices is None:
            return f"missing field 'choices'{suggest('choices', values)}"
        if not isinstance(choices, (list, tuple)) or len(choices) < 2:
            got = str(len(choices)) if isinstance(choices, (list, tuple)) else shown(choices)
            return f"choices must be a list of two or more options, got {got}"
        if len(choices) > len(ascii_uppercase):
            return f"there are {len(choices)} choices, at most {len(ascii_uppercase)} have a letter"
        for place, choice in enumerate(choices):
            if (found := not_text(choice)) is not None:
                return f"choices[{place}] is {found}; expected text"
            if self._is_empty(str(choice)):
                return f"choices[{place}] is empty"
        return None

    def check_row(self, values: dict[str, Any]) -> str | None:
        """And the right one among them."""
        if (problem := self.check_input(values)) is not None:
            return problem
        if values.get("answer") is None:
            return f"missing field 'answer'{suggest('answer', values)}"
        answer, choices = plain(values["answer"]), values["choices"]
        if isinstance(answer, bool) or not_text(answer):
            return f"answer is {kind(answer)}; expected an option's text, its index from 0 or its letter"
        if _is_ambiguous(answer, choices):
            return f"answer {answer} is an option and the index of another one; write options and answer as texts"
        if self._right(values) is None:
            what = "an index from 0, and there are" if isinstance(answer, int) else "not among the"
            return f"answer {shown(answer)} is {what} {len(choices)} choices; give its text, its index from 0 or its letter"
        return None

    def unlabelled(self, values: dict[str, Any]) -> bool:
        """Whether a row has no right option: none, an empty one, or -1."""
        value = plain(values.get("answer"))
        return value is None or (str(value).strip() in ("", "-1", "-1.0") and self._right(values) is None)

    def remarks(self, splits: Mapping[str, Sequence[Row | Example]]) -> list[tuple[str, str]]:
        """Rows that give an option twice."""
        rows = [row for part in splits.values() for row in part]
        twice = [row.where for row in rows if len(set(map(_bare, row.values["choices"]))) < len(row.values["choices"])]
        found = []
        if twice:
            what = f"{len(twice)} of {len(rows)} rows have an option twice, the first {twice[0]}"
            found.append((what, "either counts as right; leave one out if the rows are yours"))
        places = {place for row in rows if (place := self._right(row.values)) is not None}
        if len(places) == 1 and len(rows) >= _ROWS and "options" in self.spec.template.fields:
            what = f"option {ascii_uppercase[places.pop()]} is the right one in all {len(rows)} rows"
            found.append(
                (
                    what,
                    "the template shows the order of the options, so only the position is learned: shuffle the options",
                )
            )
        return found

    def content(self, row: Row) -> str:
        """And the options, which are compared (artifacts of format 1 left them out)."""
        options = row.values.get("choices") if self.rules > 1 else None
        return super().content(row) if options is None else f"{super().content(row)}\x1e{canonical_json(options)}"

    def shown(self, values: dict[str, Any]) -> dict[str, Any]:
        """With `options`."""
        lines = [
            "".join(text + {"letter": letter, "choice": str(choice), "": ""}[name] for text, name in self._option)
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
        """Index of the right option: a number is the index, a text the option's own text, else its index or its letter."""
        answer, choices = plain(values.get("answer")), [str(choice) for choice in values.get("choices") or ()]
        if isinstance(answer, bool) or not_text(answer):
            return None
        if isinstance(answer, int):
            return answer if 0 <= answer < len(choices) else None
        text = str(answer)
        # as it is written, without the blanks around it, as Unicode composes it
        for form in (str, str.strip, composed):
            if (found := [form(choice) for choice in choices]).count(form(text)):
                return found.index(form(text))
        text = text.strip()
        if text.isascii() and text.isdigit():
            return int(text) if len(text) < 3 and int(text) < len(choices) else None
        letter = ascii_uppercase.find(text) if len(text) == 1 else -1
        return letter if 0 <= letter < len(choices) else None


def _bare(choice: Any) -> str:
    return str(choice).strip()


def _is_ambiguous(answer: Any, choices: Sequence[Any]) -> bool:
    """Whether a number is one of the options, which are numbers too, and the index of another one."""
    numbers = [choice for choice in map(plain, choices) if not isinstance(choice, str)]
    return isinstance(answer, int) and answer in numbers and answer < len(choices) and plain(choices[answer]) != answer


def _pieces(option: str) -> list[tuple[str, str]]:
    """Each text of `option` and the name behind it. It may come from a stranger, so `str.format` never sees it.

    Raises:
        ConfigError: it names something else than letter and choice, or a form for them.
    """
    try:
        found = [(text, name or "", form or how or "") for text, name, form, how in Formatter().parse(option)]
    except ValueError:
        found = [("", "?", "")]
    if any(name not in ("letter", "choice", "") or form for _, name, form in found):
        raise ConfigError(
            f"option {shown(option)} can name {{letter}} and {{choice}} only, e.g. '{{letter}}. {{choice}}'"
        )
    return [(text, name) for text, name, _ in found]
