"""A row that a task can be asked, for who wants to see what one looks like."""

from __future__ import annotations

from typing import Any

from ..errors import SoftpromptError
from ..template import render
from ..template.slots import NAMES
from .base import Task

_KINDS: tuple[Any, ...] = ("…", 1, ["…"], {})  # a template may calculate with a field, or go through it


def sample_row(task: Task) -> dict[str, Any]:
    """A row with every field that the task reads, each a placeholder that its template takes."""
    # a task type says in `needs` what its rows must have beside the template's fields
    needs: dict[str, Any] = getattr(task, "needs", {})
    fields = sorted(task.fields - needs.keys())
    messages = task.spec.template.messages
    for kind in _KINDS:
        row = {**dict.fromkeys(fields, kind), **needs}
        if messages:
            row[messages] = [{"role": "user", "content": "…"}]
        if _can_be_asked(task, row):
            return row
    return {**dict.fromkeys(fields, _KINDS[0]), **needs}


def _can_be_asked(task: Task, row: dict[str, Any]) -> bool:
    try:
        if task.check_input(row) is not None:
            return False
        if not task.spec.template.messages:
            render(task.spec.template.input, {**task.shown(row), **NAMES}, "row")
    except SoftpromptError:
        return False
    return True
