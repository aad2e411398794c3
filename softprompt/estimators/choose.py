"""What `auto` means: which base and which method an estimator takes for its rows."""

from __future__ import annotations

from typing import Any

from ..tasks.proposed import Kind

_BASES: dict[Kind, str] = {
    "classification": "smollm2",
    "generation": "smollm2",
    "span": "minilm",
    "tagging": "minilm",
}
_METHODS: dict[Kind, str] = {
    "classification": "infix",
    "generation": "infix",
    "span": "prefix",
    "tagging": "prefix",
}


def resolve_auto(kind: Kind, base: Any, method: Any, rows: int) -> tuple[Any, Any]:
    """Base and method, with `auto` replaced.

    Args:
        kind: of the task.
        base, method: as the estimator was given them.
        rows: that there are to learn from.
    """
    return (
        _BASES[kind] if isinstance(base, str) and base == "auto" else base,
        _METHODS[kind] if isinstance(method, str) and method == "auto" else method,
    )
