"""What `auto` means where nothing is tried: the base and the method of a type of task."""

from __future__ import annotations

from typing import Any

from ..tasks.proposed import Kind

_BASES: dict[Kind, str] = {
    "classification": "smollm2",
    "generation": "smollm2",
    "span": "minilm",
    "tagging": "minilm",
}
_METHODS: dict[Kind, str] = {  # of a classification several are tried (`softprompt.auto`)
    "generation": "infix",
    "span": "prefix",
    "tagging": "prefix",
}


def resolve_auto(kind: Kind, base: Any, method: Any) -> tuple[Any, Any]:
    """Base and method, with `auto` replaced.

    Args:
        kind: of the task.
        base, method: as the estimator was given them.
    """
    return (
        _BASES[kind] if isinstance(base, str) and base == "auto" else base,
        _METHODS[kind] if isinstance(method, str) and method == "auto" else method,
    )
