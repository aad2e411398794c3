"""Format `kv`: keys and values per layer as plain safetensors, for whatever keeps a cache of them.

In front of the text they are a cache that is filled already: the learned ones of a prefix, or those that the base computes
from a soft prompt's embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..artifact import Artifact
from ..base import Base
from ..base.own_cache import prefix_in_peft
from ..engine.past import kv_of
from ..errors import ConfigError
from ..methods.base import LearnedTensor
from ..prepared import bind, restored
from ..tasks import Task
from .format import BASE, FOLDER, Format, Written

FILE = "keys_values.safetensors"


class KeysValues(Format):
    """Tensors `layers.{i}.key` and `layers.{i}.value`, each [1, G, P, D], at positions 0 to P-1."""

    title = "caches of keys and values"

    @classmethod
    def lacking(cls, held: Artifact) -> str | None:
        """Only what stands in front of everything can be in a cache before a row is known."""
        layout, name = held.manifest.layout, held.manifest.method["name"]
        if layout.place == "front" and layout.stores in ("embeddings", "kv"):
            return None
        if layout.place == "infix" and layout.stores == "kv":
            return (
                f"the keys of method {name!r} are rotated to where each row's text ends, which no cache before it holds"
            )
        return f"what method {name!r} has learned here are no keys and values in front of a text"

    @classmethod
    def write(
        cls, held: Artifact, base: Base | None, folder: Path, name: str, row: Mapping[str, Any] | None
    ) -> Written:
        """Write them in the base's own type, with their metadata.

        Raises:
            ConfigError: transformers' cache for this family holds something else.
        """
        assert base is not None
        reach = prefix_in_peft(base)
        if reach is None:
            raise ConfigError(
                f"base {base.name!r} ({base.kind}) has no plain cache of keys and values per layer in transformers; "
                "use a causal base with one, or serve the artifact itself (softprompt predict)"
            )
        kv = _front(held, base)
        tensors: dict[str, Tensor] = {}
        for layer, (key, value) in enumerate(kv.to(base.dtype)):
            tensors |= {
                f"layers.{layer}.key": key[None].contiguous(),
                f"layers.{layer}.value": value[None].contiguous(),
            }
        metadata = _metadata(held, base, kv.shape[3])
        save_file(tensors, folder / FILE, metadata)
        return Written(_what(kv), CODE, notes=_notes(metadata, held, reach))


@torch.no_grad()
def _front(held: Artifact, base: Base) -> Tensor:
    """[L, 2, G, P, D] of what stands in front, in fp32."""
    method = restored(held, base)
    assert isinstance(method, LearnedTensor)
    return method.value.detach() if method.stores == "kv" else kv_of(base, method.value.detach())


def _metadata(held: Artifact, base: Base, tokens: int) -> dict[str, str]:
    """Texts, as safetensors takes them. The ids are those of a row's prompt beside its text, as JSON lists."""
    record = held.manifest.base
    found = {
        "base": record.id,
        "base_digest": record.digest,
        "tokenizer_digest": record.tokenizer_digest,
        "dtype": base.label_of_dtype,
        "tokens": str(tokens),
        "first_position": "0",
    }
    if held.manifest.task is not None:
        task = Task.of_artifact(held.manifest.task, held.manifest.format_version)
        bound = bind(base, task, restored(held, base, task)).bound
        found |= {"ids_before_text": json.dumps(bound.prefix_ids), "ids_behind_text": json.dumps(bound.cue)}
    return found


CODE = f"""\
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, DynamicCache

kv = load_file("{FOLDER}/{FILE}")
cache = DynamicCache()  # a new one for each row: it grows
for layer in range(len(kv) // 2):
    cache.update(kv[f"layers.{{layer}}.key"], kv[f"layers.{{layer}}.value"], layer)
model = AutoModelForCausalLM.from_pretrained("{BASE}")
# then model(input_ids=…, past_key_values=cache) with the ids of a row's prompt"""


def _what(kv: Tensor) -> str:
    layers, _, heads, tokens, size = kv.shape
    return (
        f"Keys and values of {tokens} tokens in {layers} layers: `layers.{{i}}.key` and `layers.{{i}}.value` in `{FILE}`, "
        f"each [1, {heads}, {tokens}, {size}]. They stand at positions 0 to {tokens - 1}; the row's prompt begins at "
        f"position {tokens}."
    )


def _notes(metadata: Mapping[str, str], held: Artifact, reach: str) -> tuple[str, ...]:
    notes = [f"Numbers are {metadata['dtype']}, as the base was held for the export."]
    if "ids_before_text" in metadata:
        before, behind = metadata["ids_before_text"], metadata["ids_behind_text"]
        notes.append(f"A row's prompt is the ids `{before}`, those of its text, and `{behind}`.")
    if reach != "peft" and held.manifest.layout.stores == "kv":
        window = reach.removeprefix("peft within the window of ")
        notes.append(
            f"It answers as here in rows of at most {window}, these among them: a sliding window hides the rest."
        )
    return tuple(notes)
