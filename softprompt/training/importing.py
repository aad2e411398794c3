"""Bringing in what PEFT trained: its folder has tensors only; base and task make it an artifact of ours."""

from __future__ import annotations

from pathlib import Path

from ..artifact import read_peft
from ..artifact.peft_format import kv_to_peft
from ..base import Base
from ..methods import make_method
from ..tasks import Task
from .run import Result, prepare
from .saving import save


def import_peft(folder: str | Path, base: Base, task: Task, out: str | Path) -> Path:
    """Save a prompt- or prefix-tuning folder of PEFT as an artifact.

    The task's instruction stays in front of the text if it has one: PEFT does not say what its prompt was trained with.

    Args:
        base: the model it was trained on (its config only names it, so only shapes can be checked).
        task: how rows become text; the same template that it was trained with.

    Raises:
        ArtifactError: not a folder of PEFT that we can express, or of another shape than the base needs.
    """
    kind, tensors, config = read_peft(folder)
    method = make_method({"name": kind, "length": config["num_virtual_tokens"], "instruction": True})
    value = kv_to_peft(tensors["kv"]) if kind == "prefix" else tensors["prompt_embeddings"]
    method.restore({"prompt_embeddings": value}, base)
    ready = prepare(base, task, method, rows={"train": []})
    save(Result(ready, {}, None, {}, value.numel(), 0, 0), Path(out))
    return Path(out)
