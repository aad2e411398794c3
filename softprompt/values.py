"""What a value of a row or of a settings file is, in the words of JSON; the same for all readers."""

from __future__ import annotations

import datetime
import math
import unicodedata
from typing import Any

_LONGEST = 60  # characters of a value that a message shows


def plain(value: Any) -> Any:
    """A scalar or an array of NumPy (tables of pandas hold them) as Python's own; everything else as it is."""
    return value.tolist() if type(value).__module__ == "numpy" and hasattr(value, "tolist") else value


def kind(value: Any) -> str:
    """What a value is, for messages: `null`, `true`, `NaN`, `a text`, `a number`, `a list`, `an object`, `bytes`, `a date` …"""
    value = plain(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinite"
    kinds: tuple[tuple[Any, str], ...] = (
        (str, "a text"),
        ((int, float), "a number"),
        (dict, "an object"),
        ((list, tuple, set, frozenset), "a list"),
        ((bytes, bytearray, memoryview), "bytes"),
        ((datetime.date, datetime.time, datetime.timedelta), "a date or time"),
    )
    return next((name for types, name in kinds if isinstance(value, types)), "neither text nor number")


def not_text(value: Any) -> str | None:
    """Why a value cannot stand where text is expected (`a list`, `null`, `NaN`), or None: it is a text or a number."""
    return None if (found := kind(value)) in ("a text", "a number") else found


def text_of(value: Any) -> str:
    """A text or number as text; `true` and `false` as JSON writes them."""
    value = plain(value)
    return kind(value) if isinstance(value, bool) else str(value)


def composed(text: str) -> str:
    """A text as Unicode composes it (NFC): é is one character, however a file was written."""
    return unicodedata.normalize("NFC", text)


def shown(value: Any) -> str:
    """A value in a message: texts in quotes, numbers as they are (both cut), everything else by its kind."""
    value = plain(value)
    if (found := not_text(value)) is not None:
        return found
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST else value[:_LONGEST] + "…")
    if isinstance(value, int) and abs(value) >= 10**_LONGEST:
        return "a huge number"
    return str(value)
