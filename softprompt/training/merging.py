"""Merging what was learned into the base's weights: a plain transformers folder, and the head beside it where there is one."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from .. import artifact as artifacts
from ..artifact import Artifact
from ..artifact.card import model_card
from ..artifact.manifest import BaseRecord, LayoutSpec
from ..base import Base
from ..base.shape import DTYPES
from ..methods import Headed, Method, make_method
from ..prepared import with_head
from ..storage import atomic_folder
from ..surroundings import plain_torch
from ..tasks import Task

HEAD = "artifact"


@plain_torch()
def merge(held: Artifact, base: Base, out: Path, where: str) -> Path | None:
    """Save the base with what an artifact has learned in its weights as a plain transformers model.

    A head (on an encoder, for instance) is no weight of the base. It reads the mean of a row's states, which no
    transformers class does. So it becomes an artifact of its own in the folder, with the merged model as base: the
    template's words and the head.

    Args:
        out: the folder, which must not exist yet.
        where: the artifact's place, for messages.

    Returns:
        The head's folder, None where there is no head.

    Raises:
        ArtifactError: of another base.
        ConfigError: what was learned does not lie in weights, or cannot be merged.
    """
    with atomic_folder(out) as temporary:
        has_head = merge_into(temporary, held, base, out.name, where)
    return out / HEAD if has_head else None


def merge_into(folder: Path, held: Artifact, base: Base, name: str, where: str) -> bool:
    """Write into an empty folder what `merge` saves, and return whether there is a head.

    Args:
        name: what the folder will be called in the end.

    Raises:
        ArtifactError, ConfigError: see `merge`.
    """
    artifacts.check_base(held.manifest, base)
    method = make_method(held.manifest.method, where)
    task = Task.of_artifact(held.manifest.task, held.manifest.format_version) if held.manifest.task else None
    headed = with_head(method, base, task) if task else method
    head = {key: value for key, value in held.tensors.items() if isinstance(headed, Headed) and key in headed.own}
    method.restore({key: value for key, value in held.tensors.items() if key not in head}, base)
    method.merged(base).save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    if head and task:
        _save_head(held, headed, head, task, base, folder, name)
    return bool(head)


def _save_head(
    held: Artifact, headed: Method, head: dict[str, Tensor], task: Task, base: Base, folder: Path, name: str
) -> None:
    """The head as an artifact on the merged base, with all that was measured: it answers as the whole did."""
    dtype = next(label for label, dtype in DTYPES.items() if dtype == base.dtype)
    merged = Base.load(folder, dtype, str(base.device), kind=base.kind)
    settings = {"name": "hard", "instruction": headed.keeps_instruction, "head": True}
    alone = with_head(make_method(settings), merged, task)
    alone.restore(head, merged)
    model, tokenizer = (
        merged.identity.old if held.manifest.format_version == 1 else (merged.digest, merged.tokenizer_digest)
    )
    record = held.manifest.base.model_dump() | {
        "id": name,
        "digest": model,
        "checkpoint": merged.identity.exact,
        "tokenizer_digest": tokenizer,
    }
    numbers = sum(value.numel() for value in head.values())
    changes = {
        "method": settings,
        "layout": LayoutSpec.model_validate(alone.layout()),
        "base": BaseRecord.model_validate(record),
        "tensors": {},
        "files": {},
        "loads_in": None,
        "parameters": {"trained": held.manifest.parameters["trained"], "stored": numbers},
    }
    manifest = held.manifest.model_copy(update=changes)
    artifacts.save(folder / HEAD, manifest, head, model_card(manifest))
