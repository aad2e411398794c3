"""JSON Lines and JSON documents to rows, each with its place; a flaw of one row does not end the reading of the others."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import DataError
from ..values import kind, shown
from .formats import flattened, is_nested

Found = tuple[str, "dict[str, Any] | None", "str | None"]
"""Where, the row's values or None, what is wrong or None."""

_MAX_DIGITS = 400  # of a whole number; Python itself refuses more than 4300


@dataclass(frozen=True)
class _Flaw:
    """Stands in a document where a value is that no row may hold."""

    problem: str


def json_lines(name: str, data: bytes) -> Iterator[Found]:
    """Rows of a file with one object a line. A file that holds one list of objects instead is read as that."""
    if data.lstrip()[:1] == b"[" and (items := _whole_list(data)) is not None:
        yield from _rows(name, items)
        return
    lines = data.split(b"\n" if b"\n" in data.strip() else b"\r")
    while len(lines) > 1 and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        where = f"{name}:{number}"
        try:
            yield where, json_object(line.decode("utf-8")), None
        except UnicodeDecodeError as error:
            yield where, None, f"not valid UTF-8 (byte {error.start + 1}); save the file as UTF-8"
        except ValueError as error:
            yield where, None, str(error) if line.strip() else "the line is empty"


def json_document(name: str, data: bytes) -> Iterator[Found]:
    """Rows of a list of objects, or of SQuAD's nested document. A file with one object a line is read as that.

    Raises:
        DataError: it is neither.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        yield f"{name}:{data[: error.start].count(10) + 1}", None, "not valid UTF-8; save the file as UTF-8"
        return
    try:
        items = json.loads(text, **_LENIENT)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and _is_object(text.lstrip().partition("\n")[0]):
            yield from json_lines(name, data)
        else:
            yield f"{name}:{error.lineno}", None, f"not valid JSON: {error.msg} at column {error.colno}"
        return
    except RecursionError:
        raise DataError(f"{name}: is nested too deeply") from None
    if is_nested(items):
        for place, row, problem in flattened(items):
            yield f"{name}:{place}", row, problem or _flaw(row)
    elif isinstance(items, list):
        yield from _rows(name, items)
    else:
        raise DataError(f"{name}: expected a list of objects, got {kind(items)}; or use .jsonl, one object a line")


def is_no_text(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which can neither be tokenized nor written."""
    return any("\ud800" <= char <= "\udfff" for char in text)


def _rows(name: str, items: list[Any]) -> Iterator[Found]:
    for number, item in enumerate(items, 1):
        problem = _flaw(item) or (None if isinstance(item, dict) else f"expected an object, got {kind(item)}")
        yield f"{name}[{number}]", None if problem else item, problem


def _whole_list(data: bytes) -> list[Any] | None:
    """The list that is all of the file; None if it is something else."""
    try:
        items = json.loads(data, **_LENIENT)
    except (ValueError, RecursionError):
        return None
    return items if isinstance(items, list) and any(isinstance(item, dict) for item in items) else None


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text, **_LENIENT), dict)
    except (ValueError, RecursionError):
        return False


def json_object(text: str) -> dict[str, Any]:
    """One object, read as strictly as a row: no key stands twice, and no number is none.

    Raises:
        ValueError: it is none; says why.
    """
    try:
        value = json.loads(text, **_STRICT)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text.strip() else ""
        raise ValueError(f"not valid JSON: {error.msg} at {line}column {error.colno}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f'expected an object such as {{"text": …}}, got {kind(value)}')
    if problem := half_pairs(value):
        raise ValueError(problem)
    return value


def _flaw(item: Any) -> str | None:
    """The first flaw inside a row, at any depth."""
    left = [item]
    while left:
        found = left.pop()
        if isinstance(found, _Flaw):
            return found.problem
        if isinstance(found, (dict, list)):
            left += found.values() if isinstance(found, dict) else found
    return half_pairs(item)


def half_pairs(value: Any) -> str | None:
    """Why a value of JSON holds texts that are none, at any depth, or None (see `is_no_text`)."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return "holds half of a surrogate pair (such as \\ud800), which is no text"
    return None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Flaw:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    names = [key for key, _ in pairs]
    return _Flaw(f"key {shown(next(key for key in names if names.count(key) > 1))} stands twice")


def _float(text: str) -> float | _Flaw:
    return value if math.isfinite(value := float(text)) else _Flaw(f"{text[:20]} is too large a number")


def _int(text: str) -> int | _Flaw:
    return int(text) if len(text) <= _MAX_DIGITS else _Flaw(f"holds a number of {len(text)} digits")


def _constant(text: str) -> _Flaw:
    return _Flaw(f"{text} is not a number in JSON")


def _raising(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def strict(value: Any) -> Any:
        if isinstance(found := hook(value), _Flaw):
            raise ValueError(found.problem)
        return found

    return strict


_LENIENT: dict[str, Any] = {
    "object_pairs_hook": _pairs,
    "parse_float": _float,
    "parse_int": _int,
    "parse_constant": _constant,
}
_STRICT: dict[str, Any] = {name: _raising(hook) for name, hook in _LENIENT.items()}
