"""The base's own chat template: a row's pieces as one user turn, or a whole conversation that the row holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from ..errors import ConfigError, DataError
from ..values import shown, turns_problem
from .slots import MARK, Marked

Turn = dict[str, str]
_ROW = "\u2063ROW\u2063"


def user_turn(
    tokenizer: Any, system: str | None, front: str, cue: str, shots: Sequence[tuple[str, str]]
) -> tuple[Marked, Marked]:
    """What stands before and behind the row's own part when it is the last user turn; the base is asked to answer it.

    Args:
        front, cue: around the row's part; marks of slots may be in them. `front` opens the first turn.
        shots: earlier (user, assistant) turns.

    Raises:
        ConfigError: no chat template, or one that drops or changes the turn.
    """
    turns = [] if system is None else [_turn("system", system)]
    asked = [*(text for text, _ in shots), _ROW + cue]
    asked[0] = front + asked[0]
    for place, text in enumerate(asked):
        turns.append(_turn("user", text))
        if place < len(shots):
            turns.append(_turn("assistant", shots[place][1]))
    before, found, behind = rendered(tokenizer, turns).partition(_ROW)
    marks = front.count(MARK), cue.count(MARK)
    if not found:
        raise ConfigError("this base's chat template drops the user's message; set template.chat: false")
    if (before.count(MARK), behind.count(MARK)) != marks:
        raise ConfigError(
            "this base's chat template changes the message, so its slots are lost; set template.chat: false"
        )
    return tuple(before.split(MARK)), tuple(behind.split(MARK))


class Conversations:
    """Rows that hold a conversation so far.

    What all conversations begin with (leading special tokens, the task's system message) is `front`; what asks for the
    assistant's turn is `back`. Demonstrations stand behind the system message, which a row may add to, so they are part of
    the row.

    Args:
        field: of the row, a list of {role, content}; a text stands for one user turn.
        system: in front of a conversation's own system message; marks of slots may be in it.
        lead: turns of demonstrations.
    """

    def __init__(self, tokenizer: Any, field: str, system: str, lead: Sequence[Turn]) -> None:
        self._tokenizer, self.field, self._system, self._lead = tokenizer, field, system, list(lead)
        wholes = [rendered(tokenizer, self._with(turns)) for turns in _PROBES[:2]]
        for turns in _PROBES[2:]:
            try:
                wholes.append(rendered(tokenizer, self._with(turns)))
            except ConfigError:
                continue  # no row can begin in this way either
        bare = rendered(tokenizer, self._with(_PROBES[0]), ask=False)
        back = wholes[0][len(bare) :] if wholes[0].startswith(bare) else ""
        common = wholes[0][: _border(tokenizer, wholes)]
        if common.count(MARK) != system.count(MARK):
            raise ConfigError(
                "this base's chat template changes the system message, so its soft slots are lost; take them out of "
                "template.instruction"
            )
        self._begin, self._back = common, back
        self.front: Marked = tuple(common.split(MARK))
        self.back: Marked = (back,)
        self.example = wholes[0][len(common) : len(wholes[0]) - len(back)]

    def own(self, values: Mapping[str, Any], where: str) -> str:
        """The row's own part: all between what every conversation begins with and what asks for an answer.

        Raises:
            DataError: no conversation, or one that the base's chat template refuses.
        """
        found = turns_of(values.get(self.field), self.field)
        if isinstance(found, str):
            raise DataError(f"{where}: {found}")
        try:
            whole = rendered(self._tokenizer, self._with(found))
        except ConfigError as error:
            raise DataError(f"{where}: {error}") from None
        if not (whole.startswith(self._begin) and whole.endswith(self._back)):
            raise DataError(f"{where}: the base's chat template begins or ends this conversation as it does no other")
        own = whole[len(self._begin) : len(whole) - len(self._back)]
        if MARK in own:
            raise DataError(f"{where}: the conversation holds the mark that stands for a slot; take it out of the row")
        return own

    def _with(self, turns: Sequence[Turn]) -> list[Turn]:
        """The conversation behind system message and demonstrations; there is one system message, in front."""
        first = turns[0]["role"] == "system"
        system = "\n\n".join(text for text in (self._system, turns[0]["content"] if first else "") if text)
        rest = turns[1:] if first else turns
        return [*([_turn("system", system)] if system else []), *self._lead, *rest]


def turns_of(value: Any, field: str) -> list[Turn] | str:
    """A row's conversation without its last assistant turn (that is the answer), or what is wrong with it."""
    if isinstance(value, str):
        return [_turn("user", value)]
    if not isinstance(value, list):
        return f"field {field!r} is {shown(value)}; expected a list of {{role, content}}, both texts"
    if (problem := turns_problem(value, field)) is not None:
        return problem
    turns = [_turn(turn["role"], turn["content"]) for turn in value]
    turns = turns[:-1] if turns[-1]["role"] == "assistant" else turns
    return turns or f"field {field!r} holds no turn to answer"


def shot_turns(values: Mapping[str, Any], field: str, answer: str) -> list[Turn]:
    """A demonstration's conversation and its answer; its system message is left out.

    Raises:
        DataError: it holds no conversation.
    """
    turns = turns_of(values.get(field), field)
    if isinstance(turns, str):
        raise DataError(f"a demonstration: {turns}")
    return [*(turn for turn in turns if turn["role"] != "system"), _turn("assistant", answer)]


def _turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}


_PROBES = (
    [_turn("user", "alpha")],
    [_turn("user", "Beta")],
    [_turn("system", "gamma"), _turn("user", "alpha")],
    [_turn("user", "alpha"), _turn("assistant", "Beta"), _turn("user", "gamma")],
    [_turn("assistant", "Beta"), _turn("user", "alpha")],
)
"""Conversations that begin in the ways in which a row's may."""


def rendered(tokenizer: Any, turns: Sequence[Turn], ask: bool = True) -> str:
    """Turns through the base's chat template; with `ask` up to where the assistant goes on.

    Raises:
        ConfigError: it has none, or refuses these turns.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            "template.chat (or messages) is set, but this base has no chat template; write instruction, input and cue instead"
        )
    try:
        return str(tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=ask))
    except (TemplateError, TypeError, ValueError) as error:
        roles = ", ".join(turn["role"] for turn in turns[:6])
        raise ConfigError(f"this base's chat template refuses turns of {roles}: {error}") from None


def _border(tokenizer: Any, wholes: Sequence[str]) -> int:
    """How many characters all of these begin with, cut at a border of tokens but behind every mark."""
    least = wholes[0].rfind(MARK) + len(MARK) if MARK in wholes[0] else 0
    if not getattr(tokenizer, "is_fast", False):
        return least
    found = [tokenizer(text, add_special_tokens=False, return_offsets_mapping=True) for text in wholes]
    end = 0
    for column in zip(*(zip(one["input_ids"], one["offset_mapping"], strict=True) for one in found), strict=False):
        if len({token for token, _ in column}) > 1:
            break
        end = column[0][1][1]
    return max(least, end)
