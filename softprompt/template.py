"""Templates: Jinja2 text in an immutable sandbox that turns a row into a prompt, and a prompt into ids by segment.

The pieces are `instruction`, `input` (the only one that reads the row), `cue` and `answer`. Demonstrations stand between
instruction and input. `Prompter` tokenizes the whole prompt as one text, so the ids are those that a plain forward would
see, and finds where the row's own part begins and ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, UndefinedError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from pydantic import field_validator, model_validator

from .config import Strict, suggest
from .errors import ConfigError, DataError
from .types import Ids

_GROWING = {"center", "ljust", "rjust", "zfill", "expandtabs"}
_MAX_RESULT = 100_000  # a template comes with an artifact: it may not fill the memory of who loads it


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's immutable sandbox that also refuses to blow a value up: by `*`, `**` or `%`, or by padding a text."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Methods that make a text of any size are not safe."""
        return not (isinstance(obj, str) and attr in _GROWING) and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Any:
        """`str.format` can pad to any size, too."""
        if super().wrap_str_format(value) is not None:
            raise SecurityError("a template may not use str.format")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute `left operator right` unless the result would be huge."""
        if operator == "%" and isinstance(left, str):
            raise SecurityError("a template may not format by %")
        if operator == "*":
            value, times = (left, right) if hasattr(left, "__len__") else (right, left)
            if hasattr(value, "__len__") and isinstance(times, int) and len(value) * times > _MAX_RESULT:
                raise SecurityError(f"a template may not build texts of more than {_MAX_RESULT} characters")
        elif operator == "**" and (abs(left) > 1e6 or abs(right) > 100):
            raise SecurityError("a template may not compute such powers")
        return super().call_binop(context, operator, left, right)


_JINJA = _Sandbox(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
for _name in ("center", "format", "indent"):
    del _JINJA.filters[_name]


class TemplateSpec(Strict):
    """How a row becomes text.

    Attributes:
        instruction: in front of everything, the same for all rows (not rendered).
        input: Jinja2 text over the row's fields, e.g. `Review: {{ text }}`.
        cue: between input and answer, the same for all rows, e.g. `\\nSentiment:`.
        answer: Jinja2 text over `answer` (a label's word), e.g. ` {{ answer }}`.
        end: behind the answer, on bases that read both ways only (`It was [MASK].` has the end `.`).
        separator: between demonstrations.
        chat: put the pieces into the base's own chat template, demonstrations as earlier turns.
        system: system message, in chat only.
    """

    instruction: str = ""
    input: str
    cue: str = ""
    answer: str = " {{ answer }}"
    end: str = ""
    separator: str = "\n\n"
    chat: bool = False
    system: str | None = None

    @field_validator("input", "answer")
    @classmethod
    def _compiles(cls, text: str) -> str:
        try:
            _JINJA.parse(text)
        except TemplateSyntaxError as error:
            raise ValueError(f"line {error.lineno} is not valid Jinja2: {error.message}") from None
        return text

    @model_validator(mode="after")
    def _reads_what_it_must(self) -> TemplateSpec:
        if not self.fields:
            raise ValueError("template.input reads no field of the row; write e.g. 'Review: {{ text }}'")
        if variables(self.answer) != {"answer"}:
            raise ValueError("template.answer must read {{ answer }} and nothing else, e.g. ' {{ answer }}'")
        if self.system is not None and not self.chat:
            raise ValueError("template.system needs template.chat: true")
        return self

    @property
    def fields(self) -> set[str]:
        """Fields of a row that the input reads."""
        return variables(self.input)

    @property
    def opening(self) -> str:
        """The input's fixed beginning (`Review:`), without the white space that belongs to the row's first token."""
        head, mark, _ = self.input.partition("{")
        return head.rstrip() if mark else ""


def variables(text: str) -> set[str]:
    """Names that a Jinja2 text reads."""
    return meta.find_undeclared_variables(_JINJA.parse(text))


def render(text: str, values: Mapping[str, Any], where: str) -> str:
    """Render Jinja2 text.

    Raises:
        DataError: a field is missing, or the template fails on this row.
    """
    try:
        return _JINJA.from_string(text).render(values)
    except UndefinedError as error:
        missing = sorted(variables(text) - set(values))
        hint = suggest(missing[0], values) if missing else ""
        name = f"the row has no field {missing[0]!r}{hint}" if missing else str(error)
        raise DataError(f"{where}: {name}") from None
    except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
        raise DataError(f"{where}: the template cannot be rendered: {error}") from None


class Prompter:
    """A template bound to a tokenizer: rows to ids, split into head, text and cue.

    Args:
        instruction: whether the instruction stands in front (a method that takes its place leaves it out).
        demonstrations: (fields of the row, answer word) of each shot.
        closing: whether something stands behind the answer: `end` and the tokenizer's own closing tokens.
    """

    def __init__(
        self,
        spec: TemplateSpec,
        tokenizer: Any,
        instruction: bool = True,
        demonstrations: Sequence[tuple[Mapping[str, Any], str]] = (),
        closing: bool = False,
    ) -> None:
        self.spec, self.tokenizer = spec, tokenizer
        self._instruction = spec.instruction if instruction else ""
        shots = [(self._input(values, "a demonstration"), self._answer(word)) for values, word in demonstrations]
        self._front, self._back = self._chat(shots) if spec.chat else self._plain(shots)
        self._bos = () if spec.chat else _leading_specials(tokenizer)
        gap = spec.input[len(spec.opening) :].partition("{")[0]
        self.head, _, self.cue = self._split(gap + "word")
        self.tail: Ids = (*self._ids(spec.end), *_trailing_specials(tokenizer)) if closing else ()
        eos = getattr(tokenizer, "eos_token_id", None)
        self.ends: Ids = () if eos is None else (eos,)

    def text(self, values: Mapping[str, Any], where: str) -> Ids:
        """Ids of the row's own part: what the input renders to, without its fixed beginning."""
        own = self._input(values, where)[len(self.spec.opening) :]
        head, ids, cue = self._split(own)
        if (head, cue) != (self.head, self.cue):
            # a token straddles the border (a text that ends in a newline, say): force the border, so that every row
            # has the same head and cue
            ids = self._ids(own)
        return ids

    def offsets(self, values: Mapping[str, Any], where: str) -> tuple[str, Ids, list[tuple[int, int]]]:
        """The row's own part: as text, as ids, and where each of these begins and ends in the text.

        Raises:
            ConfigError: the tokenizer does not tell (it is none of transformers' fast ones).
        """
        if not getattr(self.tokenizer, "is_fast", False):
            raise ConfigError(
                "this base's tokenizer does not tell where its tokens stand in a text; take type generation"
            )
        own = self._input(values, where)[len(self.spec.opening) :]
        found = self.tokenizer(own, add_special_tokens=False, return_offsets_mapping=True)
        return own, tuple(found["input_ids"]), [tuple(place) for place in found["offset_mapping"]]

    def answer(self, word: str) -> Ids:
        """Ids of an answer.

        Raises:
            ConfigError: it has no tokens.
        """
        ids = self._ids(self._answer(word))
        if not ids:
            raise ConfigError(f"the answer {word!r} renders to no tokens; check template.answer and the label words")
        return ids

    def prompt(self, values: Mapping[str, Any], where: str = "row") -> str:
        """The whole prompt as text, to look at."""
        return self._front + self._input(values, where) + self._back

    def _input(self, values: Mapping[str, Any], where: str) -> str:
        return render(self.spec.input, values, where)

    def _answer(self, word: str) -> str:
        text = render(self.spec.answer, {"answer": word}, "template.answer")
        return text.lstrip() if self.spec.chat else text  # a chat turn begins without a space

    def _plain(self, shots: Sequence[tuple[str, str]]) -> tuple[str, str]:
        spec = self.spec
        examples = "".join(text + spec.cue + answer + spec.separator for text, answer in shots)
        return self._instruction + examples, spec.cue

    def _chat(self, shots: Sequence[tuple[str, str]]) -> tuple[str, str]:
        if not getattr(self.tokenizer, "chat_template", None):
            raise ConfigError("template.chat is true, but this base has no chat template; set template.chat: false")
        mark = "\u2063ROW\u2063"
        messages = [{"role": "system", "content": self.spec.system}] if self.spec.system is not None else []
        inputs = [text + self.spec.cue for text, _ in shots] + [mark + self.spec.cue]
        inputs[0] = self._instruction + inputs[0]
        for place, text in enumerate(inputs):
            messages.append({"role": "user", "content": text})
            if place < len(shots):
                messages.append({"role": "assistant", "content": shots[place][1]})
        whole = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        front, found, back = whole.partition(mark)
        if not found:
            raise ConfigError("this base's chat template drops the user's message; set template.chat: false")
        return front, back

    def _split(self, own: str) -> tuple[Ids, Ids, Ids]:
        """Tokenize the whole prompt and cut it where the row's own part begins and ends."""
        front = self._front + self.spec.opening
        if not getattr(self.tokenizer, "is_fast", False):
            return self._bos + self._ids(front), self._ids(own), self._ids(self._back)
        whole = self.tokenizer(front + own + self._back, add_special_tokens=False, return_offsets_mapping=True)
        begin, end = len(front), len(front) + len(own)
        parts: tuple[list[int], list[int], list[int]] = ([], [], [])
        for token, (start, _) in zip(whole["input_ids"], whole["offset_mapping"], strict=True):
            parts[0 if start < begin else 1 if start < end else 2].append(token)
        return self._bos + tuple(parts[0]), tuple(parts[1]), tuple(parts[2])

    def _ids(self, text: str) -> Ids:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def _leading_specials(tokenizer: Any) -> Ids:
    """Special tokens that the tokenizer puts in front of a text (BOS, if anything)."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for place in range(len(full) - len(bare) + 1):
        if full[place : place + len(bare)] == bare:
            return tuple(full[:place])
    return ()


def _trailing_specials(tokenizer: Any) -> Ids:
    """Special tokens that the tokenizer puts behind a text ([SEP])."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    return tuple(full[len(_leading_specials(tokenizer)) + len(bare) :])
