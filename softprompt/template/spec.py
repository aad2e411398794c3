"""The template's settings, and what can be known of them before a tokenizer is there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from ..config import Strict
from ..errors import DataError
from ..values import is_blank, kind, not_data, not_text
from .chat import lost_of, turns_of
from .reading import NO_BREAK_ADVICE, always_printed, literal, looped, no_break, printed
from .sandbox import RESERVED, compiled, render, variables
from .slots import MARK, NAMES, AnySlot, Marked, MaskSlot, SoftSlot, fixed, has_slot, in_input, in_plain


class TemplateSpec(Strict):
    """How a row becomes text.

    `instruction`, `input` and `cue` may hold soft slots: `{{ soft(5) }}`, `{{ soft(5, "Read the review.") }}`,
    `{{ soft(4, init="vocabulary") }}`; `input` or `cue` may hold one `{{ mask }}` (see `slots.py`). They are left out of
    demonstrations, but for the mask, where the demonstration's answer stands.

    Attributes:
        instruction: text in front of everything, the same for all rows. It is not rendered; only slots are read in it.
        input: the row's text: Jinja2 over its fields, e.g. `Review: {{ text }}`. `soft` and `mask` are not fields.
        question: text between input and cue, the same for all rows, e.g. `\\n\\nIs it about a bill?`. Nothing is learned in
            it. So tasks whose texts stand behind the same instruction share what was computed of a text.
        cue: text between input and answer, the same for all rows, e.g. `\\nSentiment:`. It is not rendered either.
        answer: the answer's text: Jinja2 over `answer` (a label's word), e.g. ` {{ answer }}`.
        end: text behind the answer, only on masked-LM bases, e.g. `.` (not rendered).
        separator: text between demonstrations.
        chat: put these texts into the base's own chat template, demonstrations as earlier turns.
        system: system message, only with `chat` or `messages`.
        messages: field that holds the conversation so far, a list of {role, content}, in place of `input` and `cue`. It
            goes through the base's own chat template; `system` and `instruction` are its system message.
        today: the date for chat templates that print one, so that the prompt is the same every day.
    """

    instruction: str = Field(default="", examples=["Say what the text is about.\n\n"])
    input: str = Field(default="", examples=["Text: {{ text }}"])
    question: str = Field(default="", examples=["\n\nIs this about a bill?"])
    cue: str = Field(default="", examples=["\nLabel:"])
    answer: str = " {{ answer }}"
    end: str = ""
    separator: str = "\n\n"
    chat: bool = False
    system: str | None = None
    messages: str | None = None
    today: str = "2024-07-26"  # part of what artifacts were trained on: it may never change

    @field_validator("today", mode="before")
    @classmethod
    def _is_a_day(cls, day: Any) -> str:
        text = str(day)
        try:
            return date.fromisoformat(text).isoformat()
        except ValueError:
            raise ValueError(f"is {text[:40]!r}, not a day; write '2024-07-26'") from None

    @field_validator("input", "answer")
    @classmethod
    def _compiles(cls, text: str) -> str:
        compiled(text)
        return text

    @field_validator("input")
    @classmethod
    def _has_plain_slots(cls, text: str) -> str:
        in_input(text)
        fixed(text)
        return text

    @field_validator("instruction", "cue")
    @classmethod
    def _has_readable_slots(cls, text: str) -> str:
        in_plain(text)
        return text

    @field_validator("question", "system", "end", "separator")
    @classmethod
    def _has_no_slots(cls, text: str | None) -> str | None:
        if text and has_slot(text):
            raise ValueError("holds a slot; soft slots stand in instruction, input and cue, the mask in input or cue")
        return text

    @model_validator(mode="after")
    def _fits_together(self) -> TemplateSpec:
        problems = [*self._about_reading(), *self._about_slots(), *self._about_chat()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _about_reading(self) -> list[str]:
        problems = []
        if not self.messages and not self.fields:
            problems.append("template.input reads no field of the row; write e.g. 'Review: {{ text }}'")
        if variables(self.answer) != {"answer"}:
            problems.append("template.answer must read {{ answer }} and nothing else, e.g. ' {{ answer }}'")
        return problems

    def _about_slots(self) -> list[str]:
        problems = []
        if any(isinstance(slot, MaskSlot) for slot in in_plain(self.instruction)[1]):
            problems.append("template.instruction holds {{ mask }}; it belongs in input or cue")
        masks = [slot for slot in self.slots if isinstance(slot, MaskSlot)]
        if len(masks) > 1:
            problems.append(f"the template holds {len(masks)} times {{{{ mask }}}}; there is one answer, keep one")
        if masks and self.in_chat:
            problems.append("template.chat is for causal bases; remove {{ mask }}")
        return problems

    def _about_chat(self) -> list[str]:
        problems = []
        if self.system is not None and not self.in_chat:
            problems.append("template.system needs template.chat: true")
        if self.end and self.in_chat:
            problems.append("template.end is for masked-LM bases; a chat turn has no text behind the answer")
        if self.messages is not None:
            if not self.messages.strip():
                problems.append("template.messages is empty; name the field that holds the conversation")
            both = [name for name in ("input", "question", "cue") if getattr(self, name)]
            if both:
                problems.append(
                    "template.messages stands in place of input, question and cue; remove template."
                    f"{' and template.'.join(both)}"
                )
        return problems

    @model_serializer(mode="wrap")
    def _without_no_question(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A template without a question is written as before there were any, so digests of earlier runs stay."""
        written: dict[str, Any] = dump(self)
        if not self.question:
            written.pop("question", None)
        return written

    @property
    def fields(self) -> set[str]:
        """Fields of a row that the template reads."""
        return {self.messages} if self.messages else variables(self.input) - RESERVED

    def field_problem(self, name: str, value: Any) -> str | None:
        """Why a field of a row cannot be read, or None: a text or number if it is printed, any JSON if it is taken apart."""
        if (found := not_data(value)) is not None:
            return f"field {name!r} is {found}" if found == kind(value) else f"field {name!r} holds {found}"
        if value is None:
            return f"field {name!r} is null"
        if self.messages:
            return None
        if name in printed(self.input) and (found := not_text(value)) is not None:
            return f"field {name!r} is {found}; expected text"
        if (prints := looped(self.input).get(name)) is None or isinstance(value, str):
            return None
        if kind(value) in ("a number", "true", "false"):
            return f"field {name!r} is {kind(value)}; expected a list"
        bad = [found for item in value if (found := not_text(item)) is not None] if prints else []
        return f"field {name!r} holds {bad[0]}; expected texts" if bad else None

    @property
    def in_chat(self) -> bool:
        """Whether the base's own chat template is used."""
        return self.chat or self.messages is not None

    @property
    def slots(self) -> tuple[AnySlot, ...]:
        """All slots in the order in which they stand in a row."""
        return (*in_plain(self.instruction)[1], *in_input(self.input), *in_plain(self.cue)[1])

    @property
    def groups(self) -> tuple[SoftSlot, ...]:
        """The soft slots among them."""
        return tuple(slot for slot in self.slots if isinstance(slot, SoftSlot))

    @property
    def plain_instruction(self) -> str:
        """The instruction without its slots."""
        return "".join(in_plain(self.instruction)[0])

    @property
    def opening(self) -> Marked:
        """The input's fixed beginning (`Review:`), without the white space that belongs to the row's first token.

        It is the same for all rows, soft slots included; split at those.
        """
        return fixed(self.input)[0]

    @property
    def gap(self) -> str:
        """White space between that beginning and the row."""
        return fixed(self.input)[1]

    @property
    def remarks(self) -> list[tuple[str, str]]:
        """What is probably meant otherwise than it is read, and what to do."""
        plain = {
            name: getattr(self, name) or "" for name in ("instruction", "question", "cue", "end", "separator", "system")
        }
        plain |= {name: "".join(in_plain(plain[name])[0]) for name in ("instruction", "cue")}
        found = [
            (f"template.{name} holds {what}, which is read as text there", "fields are read in template.input alone")
            for name, text in plain.items()
            if (what := literal(text))
        ]
        return found + [
            (f"template.{name} holds a backslash and {what[1]!r}", NO_BREAK_ADVICE)
            for name, text in {**plain, "input": self.input, "answer": self.answer}.items()
            if (what := no_break(text))
        ]

    def problem(self, values: Mapping[str, Any], tried: bool = True) -> str | None:
        """Why a row that has all fields cannot be asked, or None.

        Args:
            tried: render templates that print fields only in parts or under conditions, as only that shows what they
                print. Also check that nothing of a conversation is lost.
        """
        if self.messages:
            found = turns_of(values.get(self.messages), self.messages)
            return found if isinstance(found, str) else lost_of(values, self.messages, found) if tried else None
        if not tried or self.fields <= always_printed(self.input):
            return None
        try:
            pieces = render(self.input, {**values, **NAMES}, "row").split(MARK)
        except DataError as error:
            return str(error).removeprefix("row: ")
        first, *rest = pieces[len(self.opening) - 1 :]
        own = "".join((first[len(self.opening[-1]) :], *rest))
        return "template.input renders to an empty text for this row" if is_blank(own) else None
