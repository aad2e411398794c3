"""With which artifacts one shares what the base computes of a text, from manifests alone."""

from __future__ import annotations

from .artifact import Manifest
from .engine import SLOTS, plan
from .errors import ConfigError
from .methods import Method, make_method
from .storage import digest_of
from .tasks import Task

_BEHIND = ("question", "cue", "answer", "end")  # what of a template stands behind the text
_ANY_CUE = 10_000  # tokens: longer than what any method puts behind its prompt


def reading_digest(manifest: Manifest) -> str | None:
    """A name for how an artifact reads a text: artifacts of the same name share its keys and values (`Runtime.ask`).

    Returns:
        None where it reads every text by itself. Its base is not causal, or something is learned before the text's end,
        or it names no task that this version knows.
    """
    if manifest.kind != "causal" or manifest.task is None:
        return None
    try:
        task = Task.of_artifact(manifest.task, manifest.format_version)
        method = make_method(manifest.method)
    except ConfigError:
        return None
    template, shown = task.spec.template, task.spec.demonstrations.rows
    if not _reads_plainly(method) or (method.learns_slots and template.groups):
        return None
    front = template.model_dump(mode="json", exclude=None if shown else set(_BEHIND))
    if not method.keeps_instruction:
        front["instruction"] = ""
    words = [task.answer_word(values) for values in shown]
    base = [manifest.base.digest, manifest.base.tokenizer_digest]
    return digest_of([base, front, shown, words, task.spec.max_text_tokens, task.rules])[:12]


def _reads_plainly(method: Method) -> bool:
    """Whether the text runs through the bare base, with nothing learned in front of it."""
    try:
        return bool(plan(method.segments(SLOTS, _ANY_CUE)).row_frozen)
    except ConfigError:
        return False
