"""What a value of a row or of a settings file is, in the words of JSON; the same for all readers."""

from __future__ import annotations

import datetime
import math
import unicodedata
from collections.abc import Mapping
from typing import Any

ROLES = ("system", "user", "assistant")
OTHER = "neither text nor number"
_NOTHING = ("Cc", "Cf", "Zs", "Zl", "Zp")
_LONGEST = 60  # characters of a value that a message shows


def plain(value: Any) -> Any:
    """A scalar or an array of NumPy (tables of pandas hold them) as Python's own; everything else as it is.

    Texts and numbers of a class of their own (an enum's, Markup) become plain ones, which print what they hold.
    """
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        if value.dtype.kind in "mM":  # in nanoseconds, NumPy's default, they would become numbers
            value = value.astype(f"{value.dtype.kind}8[us]")
        if value.dtype.kind == "f" and value.ndim == 0:
            return float(str(value))  # in single precision 0.1 is not 0.10000000149011612
        return value.tolist()
    if isinstance(value, str):
        return value if type(value) is str else str.__str__(value)
    if isinstance(value, (int, float)) and type(value) not in (int, float, bool):
        return int(value) if isinstance(value, int) else float(value)
    return value


def plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's fields without NumPy's types, lists and objects included."""
    return {str(name): _plain_all(value) for name, value in row.items()}


def _plain_all(value: Any) -> Any:
    value = plain(value)
    if isinstance(value, dict):
        return {key: _plain_all(inner) for key, inner in value.items()}
    return [_plain_all(inner) for inner in value] if isinstance(value, (list, tuple)) else value


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
    return next((name for types, name in kinds if isinstance(value, types)), OTHER)


def not_text(value: Any) -> str | None:
    """Why a value cannot stand where text is expected (`a list`, `null`, `NaN`), or None: it is a text or a number."""
    return None if (found := kind(value)) in ("a text", "a number") else found


def not_data(value: Any) -> str | None:
    """Why a value is none that JSON could hold, at any depth (`NaN`, `bytes`, `a date or time`), or None."""
    left = [plain(value)]
    while left:
        found = left.pop()
        if isinstance(found, dict):
            left += map(plain, found.values())
        elif isinstance(found, (list, tuple)):
            left += map(plain, found)
        elif (what := kind(found)) not in ("null", "true", "false", "a text", "a number"):
            return what
    return None


def turns_problem(turns: Any, name: str) -> str | None:
    """Why a list is no conversation, turns of {"role": …, "content": text}, or None.

    Args:
        name: of the field, for the message.
    """
    if not turns:
        return f"{name} is an empty list; expected turns"
    for place, turn in enumerate(turns):
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            return f'{name}[{place}] is not {{"role": …, "content": text}}'
        if turn.get("role") not in ROLES:
            return f"{name}[{place}].role is {shown(turn.get('role'))}; expected {', '.join(ROLES)}"
        if extra := [key for key in ("tool_calls", "function_call") if turn.get(key)]:
            return f"{name}[{place}] holds {extra[0]}, which is not read; write what the turn says as its content"
    return None


def text_of(value: Any) -> str:
    """A text or number as text; `true` and `false` as JSON writes them."""
    value = plain(value)
    return kind(value) if isinstance(value, bool) else str(value)


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: it is empty, or white space and characters without a form (zero width, control)."""
    rest = text.strip()
    return not rest or (not rest.isprintable() and all(unicodedata.category(sign) in _NOTHING for sign in rest))


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
