"""Jinja2 in an immutable sandbox: a template comes with an artifact, so it may neither run code nor fill the memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, UndefinedError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from ..config import suggest
from ..errors import DataError

RESERVED = frozenset({"soft", "mask"})
"""Names that stand for slots in a template's input, never for fields of a row."""

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


JINJA = _Sandbox(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
for _name in ("center", "format", "indent"):
    del JINJA.filters[_name]


def variables(text: str) -> set[str]:
    """Names that a Jinja2 text reads."""
    return meta.find_undeclared_variables(JINJA.parse(text))


def render(text: str, values: Mapping[str, Any], where: str) -> str:
    """Render Jinja2 text.

    Raises:
        DataError: a field is missing, or the template fails on this row.
    """
    try:
        return JINJA.from_string(text).render(values)
    except UndefinedError as error:
        missing = sorted(variables(text) - set(values))
        hint = suggest(missing[0], set(values) - RESERVED) if missing else ""
        name = f"the row has no field {missing[0]!r}{hint}" if missing else str(error)
        raise DataError(f"{where}: {name}") from None
    except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
        raise DataError(f"{where}: the template cannot be rendered: {error}") from None
