"""What was written, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def text_of(tokenizer: Any, ids: Sequence[int]) -> str:
    """What was written, as text: special tokens are none."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def before_stops(text: str, stops: Sequence[str]) -> str:
    """The text up to the first of these in it."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def stops_in(text: str, stops: Sequence[str]) -> bool:
    """Whether one of these texts stands in it."""
    return any(stop in text for stop in stops)
