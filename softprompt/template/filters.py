"""Jinja2's filters and methods that a template may use, each within the budget of its rendering (see `limits.py`).

Left out are those that draw at random, pad, or build HTML: `random`, `center`, `indent`, `format`, `urlize`, `xmlattr`,
`pprint`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from typing import Any

from jinja2.filters import FILTERS, make_attrgetter
from jinja2.sandbox import SecurityError

from .limits import current, join, replace, size_of

_REPEAT = 10_000  # lines, items and columns that an argument asks for
_NARROW = 10  # columns; wrapping a long word takes its length squared by the width
_TAGS = 10**9  # tags times characters of the text; taking one out copies the text

_TEXT = (
    "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit islower isnumeric isspace "
    "istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip "
    "split splitlines startswith strip swapcase title upper"
)
METHODS: dict[type, frozenset[str]] = {
    str: frozenset(_TEXT.split()),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
    dict: frozenset({"get", "items", "keys", "values"}),
    set: frozenset(),
    frozenset: frozenset(),
    int: frozenset(),
    float: frozenset({"is_integer"}),
    bytes: frozenset(),
}
"""What may be called of plain values."""

OF_TEXT = frozenset(
    ("capitalize", "e", "escape", "forceescape", "lower", "replace", "string", "striptags", "title", "trim", "truncate")
) | {"upper", "wordcount", "wordwrap"}
"""Filters that write what they are given as a text."""

_PLAIN = (
    "abs capitalize count d default dictsort e escape first float forceescape groupby int items last length lower map max min "
    "reject rejectattr reverse safe select selectattr sort string title trim unique upper urlencode wordcount"
)


def filters() -> dict[str, Callable[..., Any]]:
    """By name; each keeps the mark that says what Jinja2 passes it first."""
    own: dict[str, Callable[..., Any]] = {
        "batch": _batch,
        "join": _join,
        "list": _list,
        "replace": _replace,
        "round": _round,
        "slice": _slice,
        "striptags": _striptags,
        "sum": _sum,
        "tojson": _tojson,
        "truncate": _truncate,
        "wordwrap": _wordwrap,
    }
    functions = {name: FILTERS[name] for name in _PLAIN.split()} | own
    return {name: _accounted(name, function) for name, function in functions.items()}


def _accounted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    marked = FILTERS[name]
    place = int(hasattr(marked, "jinja_pass_arg"))  # behind what Jinja2 passes first

    @functools.wraps(marked)
    def run(*args: Any, **names: Any) -> Any:
        if name in OF_TEXT:
            current().check_text(args[place])
        return current().made(function(*args, **names))

    return run


def call(method: Callable[..., Any], *args: Any, **names: Any) -> Any:
    """Call a method of a plain value, or a function of the template."""
    text = getattr(method, "__self__", None)
    if isinstance(text, str) and method.__name__ == "replace":
        result: Any = replace(text, *args, **names)
    elif isinstance(text, str) and method.__name__ == "join":
        (parts,) = args
        result = text.join(join(parts, text))
    else:
        result = method(*args, **names)
    return current().made(result)


def _at_most(name: str, argument: str, value: Any, most: int) -> None:
    size = abs(value) if isinstance(value, (int, float)) else 0 if value is None else size_of(value, most)
    if size > most:
        raise SecurityError(f"the filter {name!r} has {argument} {value!r:.40}; at most {most}")


def _batch(value: Iterable[Any], linecount: int, fill_with: Any = None) -> Any:
    _at_most("batch", "linecount", linecount, _REPEAT)
    return FILTERS["batch"](value, linecount, fill_with)


def _slice(eval_ctx: Any, value: Any, slices: int, fill_with: Any = None) -> Any:
    _at_most("slice", "slices", slices, _REPEAT)
    return FILTERS["slice"](eval_ctx, value, slices, fill_with)


def _round(value: float, precision: int = 0, method: Any = "common") -> Any:
    _at_most("round", "precision", precision, 30)
    return FILTERS["round"](value, precision, method)


def _tojson(eval_ctx: Any, value: Any, indent: int | None = None) -> Any:
    _at_most("tojson", "indent", indent, 8)
    if not current().plain:
        return FILTERS["tojson"](eval_ctx, value, indent)
    return json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False)  # it is no HTML: 好 and < stay


def _truncate(
    env: Any, s: str, length: int = 255, killwords: bool = False, end: str = "...", leeway: Any = None
) -> Any:
    _at_most("truncate", "end", end, 1000)
    return FILTERS["truncate"](env, s, length, killwords, end, leeway)


def _wordwrap(environment: Any, s: str, width: int = 79, *args: Any, **names: Any) -> Any:
    _at_most("wordwrap", "width", width, _REPEAT)
    if width < _NARROW or any(size_of(value, 16) > 16 for value in (*args, *names.values())):
        raise SecurityError(f"the filter 'wordwrap' takes {_NARROW} columns or more, and short line ends")
    return FILTERS["wordwrap"](environment, s, width, *args, **names)


def _striptags(value: Any) -> Any:
    text = str(value)
    _at_most("striptags", "so many tags:", text.count("<") * len(text), _TAGS)
    return FILTERS["striptags"](text)


def _replace(eval_ctx: Any, s: Any, old: Any, new: Any, count: int | None = None) -> str:
    current().check_text(old)
    current().check_text(new)
    return replace(str(s), str(old), str(new), count)


def _join(eval_ctx: Any, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> Any:
    if attribute is not None:
        value = map(make_attrgetter(eval_ctx.environment, attribute), value)
    parts = join(value, str(d))
    for part in parts:
        current().check_text(part)
    return FILTERS["join"](eval_ctx, parts, d)


def _list(_eval_ctx: Any, value: Iterable[Any]) -> list[Any]:
    return join(value)


def _sum(environment: Any, iterable: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
    if not isinstance(start, (int, float)):
        raise SecurityError("the filter 'sum' adds numbers; texts are joined by 'join'")
    return FILTERS["sum"](environment, join(iterable), attribute, start)
