"""What an artifact learned, without its template: round texts that somebody else wrote.

A harness brings the whole prompt of a request, so nothing of the artifact's template is read. What was learned stands where its
method puts it: in front of the context, in the weights, or behind the text. In the last case the context's last tokens play
the template's cue, as many as that one has.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..answers import Prompt
from ..artifact import folder_of, is_ensemble, load
from ..base import Base
from ..engine import CacheConfig, Slot
from ..errors import ConfigError
from ..methods import Method, make_method
from ..prepared import bind, restored
from ..tasks import Task

UNKEPT = CacheConfig(ram=0, disk=0)
_SLOTS = (Slot("prefix_ids", same=True), Slot("text", part=0), Slot("cue"), Slot("answer"))


def learned_of(base: Base, folder: str | Path | None) -> tuple[Method, int]:
    """The method of an artifact, restored, and how many tokens its template's cue has; without a folder nothing learned.

    Raises:
        ConfigError: it learned nothing that could act on a text of somebody else's, or answers without the base's words.
        ArtifactError: damaged, or of another base.
    """
    if not base.answers_at_end:
        raise ConfigError(
            f"base {base.name!r} ({base.kind}) gives no likelihood of a text behind another; use a causal base, e.g. smollm2"
        )
    if folder is None:
        return make_method("hard"), 0
    folder = folder_of(folder)
    if is_ensemble(folder):
        raise ConfigError(
            f"{folder}: is an ensemble, whose members together choose among their task's labels; a text has no likelihood "
            f"there. Name one member: {Path(folder) / 'members'}/NAME"
        )
    held = load(folder)
    recorded = held.manifest.task
    task = None if recorded is None else Task.of_artifact(recorded, held.manifest.format_version)
    method = restored(held, base, task)
    name = method.spec.name
    if method.answers is not None:
        raise ConfigError(
            f"{folder}: method {name!r} answers by a classifier of its own, so a text has no likelihood behind it; measure it "
            "with softprompt eval"
        )
    if method.stores == "none":
        raise ConfigError(
            f"{folder}: method {name!r} learned nothing: what it knows is its template, and the harness brings prompts of its "
            "own. Leave artifact out, or measure it with softprompt eval"
        )
    if task is None:
        return method, 0
    prompt: Prompt = bind(base, task, method, UNKEPT)
    return method, len(prompt.bound.cue)


def slots_of(method: Method, cue: int) -> tuple[tuple[Slot, ...], tuple[int, ...]]:
    """The slots of a request with the learned one put in, and before which of a context's last `cue` tokens the text is cut.

    Raises:
        ConfigError: what was learned has no place without its template.
    """
    try:
        asked = method.segments(_SLOTS, cue)
    except ConfigError as error:
        raise ConfigError(
            f"what this artifact learned has no place in a text without its template ({error}); measure it with softprompt eval"
        ) from error
    slots: list[Slot] = []
    cuts: list[int] = []
    for slot in asked:
        if slot.name == "cue":  # each row has its own: a part of its text
            cuts.append(slot.start or 0)
            slot = replace(slot, name="text", part=len(cuts), start=None, stop=None)
        slots.append(slot)
    return tuple(slots), tuple(cuts)
