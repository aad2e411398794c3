"""Where an answer ends: the tokens that end a written one, and text that opens or closes a turn without a token of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import ConfigError
from ..types import Ids
from .chat import Turn, rendered
from .sandbox import render
from .spec import TemplateSpec

_ANSWER, _NEXT = "Beta", "gamma"
_MARK = "\u2063"  # stands for an answer


class Ends(NamedTuple):
    """What ends a written answer.

    Attributes:
        tokens: each of them does; the first one is learned behind every answer.
        texts: so do these, of chat templates whose turns begin or end with plain text.
    """

    tokens: Ids = ()
    texts: tuple[str, ...] = ()


def answer_ends(tokenizer: Any, in_chat: bool, base_ends: Sequence[int] = (), rules: int = 2) -> Ends:
    """What ends an answer of this base.

    Args:
        in_chat: answers are turns of the base's chat template, so what closes its turns comes first, and a marker that opens
            the next turn ends an answer as well. Elsewhere the tokenizer's own end comes first.
        base_ends: what the base's `generation_config` names.
        rules: 1: nothing but the tokenizer's end, as artifacts of format version 1 were trained.
    """
    own = getattr(tokenizer, "eos_token_id", None)
    others = [] if own is None else [own]
    if rules < 2:
        return Ends(_distinct(others))
    others += base_ends
    closing, markers, text = _turns(tokenizer)
    if not in_chat:
        return Ends(_distinct([*others, *closing]))
    return Ends(_distinct([*closing, *others, *markers]), (text,) if text else ())


def answer_frame(spec: TemplateSpec) -> tuple[str, str]:
    """What `template.answer` puts before and behind an answer."""
    lead, _, tail = render(spec.answer, {"answer": _MARK}, "template.answer").partition(_MARK)
    return lead.lstrip() if spec.in_chat else lead, tail  # a chat turn begins without a space


def _turns(tokenizer: Any) -> tuple[list[int], list[int], str]:
    """Of the base's chat template: the token that closes an assistant's turn, tokens that open the next, or text that does."""
    if not getattr(tokenizer, "chat_template", None):
        return [], [], ""
    markers: list[int] = []
    closing: list[int] = []
    plain = ""
    # the last answer of a conversation may be closed by another token than earlier ones
    for behind in (_behind(tokenizer, 2), _behind(tokenizer, 3)):
        found, lead = _markers(tokenizer, behind)
        markers += found
        if not lead:
            closing = closing or found[:1]
        plain = plain or lead
    return closing, markers, "" if closing else plain


def _markers(tokenizer: Any, text: str) -> tuple[list[int], str]:
    """The special tokens in a text, but those that begin any text (BOS), and the first line of plain text before them."""
    special = {getattr(tokenizer, name, None) for name in ("bos_token_id", "unk_token_id")}
    special.discard(getattr(tokenizer, "eos_token_id", None))
    known = {token: word for word, token in tokenizer.get_added_vocab().items() if word.strip() and word in text}
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    found = [token for token in ids if token in known and token not in special]
    first = min((text.find(known[token]) for token in found), default=len(text))
    plain = text[:first].strip()
    return found, plain.splitlines()[0].strip() if plain else ""


def _behind(tokenizer: Any, count: int) -> str:
    """What the chat template puts behind an assistant's turn, in a conversation of so many turns, up to the next one's text."""
    words = ("user", "alpha"), ("assistant", _ANSWER), ("user", _NEXT)
    turns: list[Turn] = [{"role": role, "content": text} for role, text in words[:count]]
    try:
        return rendered(tokenizer, turns, ask=False).partition(_ANSWER)[2].partition(_NEXT)[0]
    except ConfigError:  # a template that refuses such turns
        return ""


def _distinct(tokens: Sequence[int]) -> Ids:
    return tuple(dict.fromkeys(tokens))
