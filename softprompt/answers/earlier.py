"""Names of the version before, of what is now asked of a form of answers: read for one more version, with a warning."""

from __future__ import annotations

from typing import Any

from ..renamed import tell_renamed

FORM = {"example": "encode", "examples": "encode_rows"}
BOUND = {"head": "prefix_ids"}
"""Earlier name → today's, of the form and of the bound task."""


def earlier(form: Any, name: str) -> Any:
    """What a name of the version before stands for.

    Raises:
        AttributeError: it never stood for anything.
    """
    if name in FORM:
        today, owner = FORM[name], form
    elif name in BOUND:
        today, owner = BOUND[name], form.bound
    elif name in ("ends", "stops", "read", "spoken", "candidates", "answer") and name in dir(form):
        today, owner = name, form
    else:
        raise AttributeError(f"{type(form).__name__!r} object has no attribute {name!r}")
    tell_renamed(f"{name} is now {type(owner).__name__}.{today}", level=3)
    return getattr(owner, today)
