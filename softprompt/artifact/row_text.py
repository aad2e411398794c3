"""The text that stands in front of a row's answer, for whoever loads an artifact without softprompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SoftpromptError
from ..template.sandbox import render
from .manifest import Manifest


def row_text(manifest: Manifest, row: Mapping[str, Any]) -> str | None:
    """What a row reads in front of its answer, learned tokens aside.

    None where the base's own chat template or slots of the template decide it, or this version does not know the task.
    """
    from ..methods import make_method  # tasks and methods stand above the artifacts
    from ..tasks import Task

    if manifest.task is None:
        return None
    try:
        task = Task.of_artifact(manifest.task, manifest.format_version)
        method = make_method(manifest.method)
        template = task.spec.template
        if template.in_chat or template.slots:
            return None
        pieces = [template.instruction if method.keeps_instruction else ""]
        for values in task.spec.demonstrations.rows:
            pieces += [render(template.input, task.shown(values), "a demonstration"), template.question, template.cue]
            pieces += [
                render(template.answer, {"answer": task.answer_word(values)}, "a demonstration"),
                template.separator,
            ]
        pieces += [render(template.input, task.shown(dict(row)), "row"), template.question, template.cue]
    except SoftpromptError:
        return None
    return "".join(pieces)
