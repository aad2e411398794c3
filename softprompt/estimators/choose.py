"""What `auto` means where nothing is tried: the base and the method of a type of task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BASES: dict[str, str] = {
    "classification": "smollm2",
    "generation": "smollm2",
    "span": "minilm",
    "tagging": "minilm",
    "multilabel": "minilm",
}
_METHODS: dict[str, str] = {  # of a classification several are tried (`softprompt.auto`)
    "generation": "infix",
    "span": "prefix",
    "tagging": "prefix",
    "multilabel": "probe",
}


def resolve_auto(kind: str, base: Any, method: Any) -> tuple[Any, Any]:
    """Base and method, with `auto` replaced.

    Args:
        kind: type of the task.
        base, method: as the estimator was given them; what else a mapping says holds.
    """
    return _resolved(base, _BASES[kind]), _resolved(method, _METHODS[kind]) if kind in _METHODS else method


def _resolved(setting: Any, name: str) -> Any:
    if isinstance(setting, Mapping):
        return {**setting, "name": name} if setting.get("name") == "auto" else setting
    return name if isinstance(setting, str) and setting == "auto" else setting
