"""With which artifacts one shares what the base computes of a text, from manifests alone."""

from __future__ import annotations

from .answers import find_form
from .artifact import Manifest
from .engine import lay_out, plan
from .errors import ConfigError
from .methods import Method, make_method
from .storage import digest_of
from .tasks import Task
from .template import TemplateSpec

_BEHIND = ("question", "cue", "answer", "end")  # what of a template stands behind the text
_ANY_CUE = 10_000  # tokens: longer than what any method puts behind its prompt


def reading_digest(manifest: Manifest) -> str | None:
    """A name for how an artifact reads a text: artifacts of the same name share its keys and values (`Runtime.ask`).

    Returns:
        None where it reads every text by itself. Its base is not causal, or something is learned before the text's end,
        or a head reads each token of it, or it names no task that this version knows.
    """
    if manifest.kind != "causal" or manifest.task is None:
        return None
    try:
        task = Task.of_artifact(manifest.task, manifest.format_version)
        method = make_method(manifest.method)
    except ConfigError:
        return None
    template, shown = task.spec.template, task.spec.demonstrations.rows
    if not find_form(task.form).mixes or not _reads_plainly(method, template):
        return None
    front = template.model_dump(mode="json", exclude=None if shown else set(_BEHIND))
    if not method.keeps_instruction and not (method.learns_slots and template.groups):
        front["instruction"] = ""
    words = [task.answer_word(values) for values in shown]
    base = [manifest.base.digest, manifest.base.tokenizer_digest]
    return digest_of([base, front, shown, words, task.spec.max_text_tokens, task.rules])[:12]


def _reads_plainly(method: Method, template: TemplateSpec) -> bool:
    """Whether the text runs through the bare base, with nothing learned in front of it or in it."""
    learned = len(template.groups) if method.learns_slots else 0
    if learned > len(template.model_copy(update={"instruction": "", "input": ""}).groups):
        return False  # a soft slot stands in front of the text's end
    names = tuple(f"soft{place}" for place in range(learned))
    holes = {"prefix_ids": (), "cue": (_ANY_CUE,) * learned}
    slots = lay_out({"prefix_ids": (), "text": (), "cue": names}, holes, {"prefix_ids": 1, "cue": 2 * _ANY_CUE})
    try:
        return bool(plan(method.segments(slots, 2 * _ANY_CUE)).row_frozen)
    except ConfigError:
        return False
