"""Old names are read for one more version, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from .snippets import nested_model


def tell_renamed(what: str, level: int = 2) -> None:
    """Warn of an old name that was met.

    Args:
        what: which name it has now.
        level: whose line is shown; 1 is the caller's, 2 that of its caller.
    """
    warnings.warn(f"{what}; the next version will not know the old name", FutureWarning, stacklevel=level + 1)


def with_first_keys(model: type[BaseModel], data: Any) -> Any:
    """Settings under the names that their keys had first, for digests: a new name makes no other run.

    Args:
        data: as `model_dump` gives it, with today's names.
    """
    return _with_keys(model, data, first=True)


def with_current_keys(model: type[BaseModel], data: Any) -> Any:
    """Settings that an earlier version wrote, under today's names and without a warning: nobody edits an artifact.

    Args:
        data: as it was written; may be anything, as nothing of it has been validated.
    """
    return _with_keys(model, data, first=False)


def with_current_path(model: type[BaseModel], keys: Sequence[str]) -> list[str]:
    """Keys that lead into nested settings, under today's names."""
    path = []
    inner: type[BaseModel] | None = model
    for key in keys:
        path.append(getattr(inner, "renamed", {}).get(key, key))
        field = inner.model_fields.get(path[-1]) if inner else None
        inner = nested_model(field.annotation) if field else None
    return path


def _with_keys(model: type[BaseModel], data: Any, first: bool) -> Any:
    if not isinstance(data, dict):
        return data
    renamed: dict[Any, Any] = getattr(model, "renamed", {})
    names = {new: old for old, new in renamed.items()} if first else renamed
    settings = {}
    for key, value in data.items():
        if key in names and names[key] in data:
            return data  # both are given, which is refused where it is validated
        field = model.model_fields.get(str(renamed.get(key, key)))
        nested = nested_model(field.annotation) if field else None
        settings[names.get(key, key)] = value if nested is None else _with_keys(nested, value, first)
    return settings
