"""The base's own chat template: a row's pieces as one user turn, or a whole conversation that the row holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError, DataError
from ..values import is_blank, shown, turns_problem
from .clock import stopped
from .slots import MARK, Marked
from .tokens import Texts

Turn = dict[str, str]
_ROW = "\u2063ROW\u2063"
_WRITTEN_TURNS = re.compile(r"""\s*\[\s*\{\s*(?:"(?:role|content|from)"|'(?:role|content|from)')\s*:""")


def user_turn(
    tokenizer: Any,
    texts: Texts,
    system: str | None,
    front: str,
    question: str,
    cue: str,
    shots: Sequence[tuple[str, str]],
    day: str | None = None,
) -> tuple[Marked, str, Marked, tuple[bool, bool]]:
    """What stands before the row's own part, its question, and what stands behind that.

    The row's part is in the last user turn, which the base answers.

    Args:
        front, question, cue: around the row's part; marks of slots may be in `front`, which opens the first turn, and `cue`.
        shots: earlier (user, assistant) turns.
        day: that the chat template sees, if it reads a clock.

    Returns:
        all armoured, as are the texts that are given (see `tokens.py`); and whether the chat template takes white space off
        the row's beginning and end. It may take it off the end of a question without a cue.

    Raises:
        ConfigError: no chat template, or one that drops or changes the turn.
    """
    turns = [] if system is None else [_turn("system", system)]
    asked = [*(texts.shield(text) for text, _ in shots), _ROW + question + cue]
    asked[0] = front + asked[0]
    for place, text in enumerate(asked):
        turns.append(_turn("user", text))
        if place < len(shots):
            turns.append(_turn("assistant", texts.shield(shots[place][1])))
    whole = rendered(tokenizer, turns, day=day)
    turns[-1] = _turn("user", turns[-1]["content"].replace(_ROW, f"\n{_ROW}\n"))
    spaced = rendered(tokenizer, turns, day=day)
    trims = tuple(spaced == whole.replace(_ROW, kept) for kept in (f"{_ROW}\n", f"\n{_ROW}"))
    bare = spaced == whole
    before, found, behind = texts.unshield(whole).partition(_ROW)
    if not behind.startswith(question) and is_blank(cue):
        question = question.rstrip()
    if not behind.startswith(question):
        raise ConfigError("this base's chat template changes template.question; set template.chat: false")
    behind = behind[len(question) :]
    marks = front.count(MARK), cue.count(MARK)
    if not found or _ROW in behind:
        what = "repeats" if found else "drops"
        raise ConfigError(f"this base's chat template {what} the user's message; set template.chat: false")
    if (before.count(MARK), behind.count(MARK)) != marks:
        raise ConfigError(
            "this base's chat template changes the message, so its slots are lost; set template.chat: false"
        )
    return tuple(before.split(MARK)), question, tuple(behind.split(MARK)), (trims[0] or bare, trims[1] or bare)


class Conversations:
    """Rows that hold a conversation so far.

    What all conversations begin with (leading special tokens, the task's system message) is `front`; what asks for the
    assistant's turn is `back`. Demonstrations stand behind the system message, which a row may add to, so they are part of
    the row.

    Args:
        field: of the row, a list of {role, content}; a text stands for one user turn.
        system: in front of a conversation's own system message; marks of slots may be in it.
        lead: turns of demonstrations.
        day: that the chat template sees, if it reads a clock.
    """

    def __init__(
        self, tokenizer: Any, texts: Texts, field: str, system: str, lead: Sequence[Turn], day: str | None = None
    ) -> None:
        self._tokenizer, self._texts, self._day = tokenizer, texts, day
        self.field, self._system = field, system
        self._lead = _shielded(lead, texts)
        wholes = [self._whole(turns) for turns in _PROBES[:2]]
        for turns in _PROBES[2:]:
            try:
                wholes.append(self._whole(turns))
            except ConfigError:
                continue  # no row can begin in this way either
        bare = self._whole(_PROBES[0], ask=False)
        back = wholes[0][len(bare) :] if wholes[0].startswith(bare) else ""
        common = wholes[0][: _border(texts, wholes)]
        if common.count(MARK) != system.count(MARK):
            raise ConfigError(
                "this base's chat template changes the system message, so its soft slots are lost; remove them from "
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
            whole = self._whole(_shielded(found, self._texts))
        except ConfigError as error:
            raise DataError(f"{where}: {error}") from None
        if not (whole.startswith(self._begin) and whole.endswith(self._back)):
            raise DataError(f"{where}: the base's chat template begins or ends this conversation as it does no other")
        own = whole[len(self._begin) : len(whole) - len(self._back)]
        if MARK in own:
            raise DataError(f"{where}: the conversation holds the mark that stands for a slot; remove it from the row")
        return own

    def _whole(self, turns: Sequence[Turn], ask: bool = True) -> str:
        """The whole conversation as text, armoured, from turns that are shielded."""
        return self._texts.unshield(rendered(self._tokenizer, self._with(turns), ask, self._day))

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


def lost_of(values: Mapping[str, Any], field: str, turns: Sequence[Turn]) -> str | None:
    """What of a row's conversation would not reach the base, or None.

    Args:
        turns: as `turns_of` reads them.
    """
    if all(is_blank(turn["content"]) for turn in turns if turn["role"] == "user"):
        return f"field {field!r} holds no text of the user"
    if isinstance(text := values[field], str) and _WRITTEN_TURNS.match(text):
        return f"field {field!r} holds turns written as one text, as tables hold them; use .jsonl, with a list of turns"
    if extra := [name for name in ("tools", "functions", "images", "videos", "audio") if _holds(values.get(name))]:
        return f"the row holds {extra[0]} beside {field!r}, which no conversation is asked with; leave that field out"
    return None


def _holds(value: Any) -> bool:
    return isinstance(value, (list, tuple, dict, str)) and len(value) > 0 and value not in ("[]", "{}", "null")


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


def _shielded(turns: Sequence[Turn], texts: Texts) -> list[Turn]:
    return [_turn(texts.shield(turn["role"]), texts.shield(turn["content"])) for turn in turns]


_PROBES = (
    [_turn("user", "alpha")],
    [_turn("user", "Beta")],
    [_turn("system", "gamma"), _turn("user", "alpha")],
    [_turn("user", "alpha"), _turn("assistant", "Beta"), _turn("user", "gamma")],
    [_turn("assistant", "Beta"), _turn("user", "alpha")],
)
"""Conversations that begin in the ways in which a row's may."""


def answer_lead(tokenizer: Any, day: str | None = None) -> str:
    """White space that the base's chat template puts between what asks for an answer and the answer."""
    turns = [_turn("user", "alpha"), _turn("assistant", "Beta")]
    try:
        asked, whole = rendered(tokenizer, turns[:1], day=day), rendered(tokenizer, turns, ask=False, day=day)
    except ConfigError:  # it takes no such turns
        return ""
    lead, found, _ = whole.removeprefix(asked).partition("Beta")
    return lead if found and whole.startswith(asked) and lead.isspace() else ""


def turn_tokens(tokenizer: Any) -> list[int]:
    """Added tokens that the base's chat template opens and closes turns with, special ones or not."""
    try:
        whole = rendered(tokenizer, [_turn("user", "alpha"), _turn("assistant", "Beta"), _turn("user", "gamma")])
    except ConfigError:  # which is told where a prompt is made of it
        return []
    return [token for word, token in tokenizer.get_added_vocab().items() if word.strip() and word in whole]


def rendered(tokenizer: Any, turns: Sequence[Turn], ask: bool = True, day: str | None = None) -> str:
    """Turns through the base's chat template; with `ask` up to where the assistant goes on.

    Args:
        day: that it sees, if it reads a clock; None: today.

    Raises:
        ConfigError: it has none, or refuses these turns.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            "template.chat (or messages) is set, but this base has no chat template; write instruction, input and cue instead"
        )
    try:
        own = None if day is None else stopped(tokenizer.get_chat_template(), day)
        how = {"tokenize": False, "add_generation_prompt": ask, "chat_template": own}
        return str(tokenizer.apply_chat_template(list(turns), **how))
    except Exception as error:  # whatever a base's own template does
        roles = ", ".join(turn["role"] for turn in turns[:6])
        raise ConfigError(f"this base's chat template refuses turns of {roles}: {error}") from None


def _border(texts: Texts, wholes: Sequence[str]) -> int:
    """How many characters all of these begin with, cut at a border of tokens but behind every mark."""
    least = wholes[0].rfind(MARK) + len(MARK) if MARK in wholes[0] else 0
    if not texts.fast:
        return least
    found = [texts.placed([text]) for text in wholes]
    end = 0
    for column in zip(*(zip(ids, places, strict=True) for ids, places, _ in found), strict=False):
        if len({token for token, _ in column}) > 1:
            break
        end = column[0][1][1]
    return max(least, texts.place(wholes[0], end, found[0][2][-1]))
