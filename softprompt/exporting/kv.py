"""Format `kv`: keys and values per layer as plain safetensors, for whatever keeps a cache of them.

In front of the text they are a cache that is filled already: the learned ones of a prefix, or those that the base computes
from a soft prompt's embeddings. An infix stands behind the text and takes no position. Its keys come with the rotation of
each layer, by which they are moved to where a row's text ends.
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
from ..base.rotary import rotations_of
from ..engine.past import kv_of
from ..errors import ConfigError
from ..methods.base import LearnedTensor
from ..prepared import bind, restored
from ..tasks import Task
from .format import BASE, FOLDER, Format, Written

FILE = "keys_values.safetensors"


class KeysValues(Format):
    """Tensors `layers.{i}.key` and `layers.{i}.value`, each [1, G, P, D].

    Of an infix also `layers.{i}.rates` [D] and `layers.{i}.quarter` [D, D].
    """

    title = "caches of keys and values"

    @classmethod
    def lacking(cls, held: Artifact) -> str | None:
        """Keys and values in front of everything or behind the text, or embeddings that become some."""
        layout, name = held.manifest.layout, held.manifest.method["name"]
        if held.manifest.kind != "causal":
            return f"its base is of kind {held.manifest.kind!r}, and only a causal one goes on from a cache alone"
        if (layout.stores, layout.place) in (("embeddings", "front"), ("kv", "front"), ("kv", "infix")):
            return None
        return f"what method {name!r} has learned here are no keys and values in front of a text or behind it"

    @classmethod
    def write(
        cls, held: Artifact, base: Base | None, folder: Path, name: str, row: Mapping[str, Any] | None
    ) -> Written:
        """Write them in the base's own type, with their metadata.

        Raises:
            BaseModelError: an infix on a base whose rotation of keys was not found.
            ConfigError: transformers' cache for this family holds something else.
        """
        assert base is not None
        reach = prefix_in_peft(base)
        if reach is None:
            raise ConfigError(
                f"base {base.name!r} has no plain cache of keys and values per layer in transformers; serve the artifact "
                "itself (softprompt predict)"
            )
        infix = held.manifest.layout.place == "infix"
        method = restored(held, base)
        assert isinstance(method, LearnedTensor)
        kv = _keys_values(method, base)
        tensors: dict[str, Tensor] = {}
        for layer, (key, value) in enumerate(kv.to("cpu", base.dtype)):
            tensors |= {
                f"layers.{layer}.key": key[None].contiguous(),
                f"layers.{layer}.value": value[None].contiguous(),
            }
        if infix:
            tensors |= _rotations(base, turned=getattr(method.spec, "turned", None) is not False)
        metadata = _metadata(held, base, kv.shape[3])
        save_file(tensors, folder / FILE, metadata)
        code = CODE_OF_INFIX if infix else CODE
        return Written(_what(kv, infix), code, notes=_notes(metadata, held, reach))


@torch.no_grad()
def _keys_values(method: LearnedTensor, base: Base) -> Tensor:
    """[L, 2, G, P, D] in fp32: learned, or computed from learned embeddings that stand in front of everything."""
    value = method.value.detach()
    return value if method.stores == "kv" else kv_of(base, value)


def _rotations(base: Base, turned: bool) -> dict[str, Tensor]:
    """Of each layer `rates` [D] and `quarter` [D, D]; zeros where keys stay as they are.

    Args:
        turned: False of an infix that was trained without the rotation.
    """
    size = base.shape.head_size
    tensors: dict[str, Tensor] = {}
    for layer, rotation in enumerate(rotations_of(base)):
        rates, quarter = torch.zeros(size), torch.zeros(size, size)
        if rotation is not None and turned:
            rates, quarter = rotation.rates.float().cpu().clone(), rotation.quarter.float().cpu().clone()
        tensors |= {f"layers.{layer}.rates": rates, f"layers.{layer}.quarter": quarter}
    return tensors


def _metadata(held: Artifact, base: Base, tokens: int) -> dict[str, str]:
    """Texts, as safetensors takes them. The ids are those of a row's prompt beside its text, as JSON lists."""
    record, infix = held.manifest.base, held.manifest.layout.place == "infix"
    told = {
        "base": record.id,
        "base_digest": record.digest,
        "tokenizer_digest": record.tokenizer_digest,
        "dtype": base.label_of_dtype,
        "tokens": str(tokens),
        "first_position": "none" if infix else "0",
    }
    if held.manifest.task is not None:
        task = Task.of_artifact(held.manifest.task, held.manifest.format_version)
        prompt = bind(base, task, restored(held, base, task))
        behind = prompt.bound.behind  # the question, too
        size = len(behind) - (getattr(prompt.method.spec, "cue", 0) if infix else 0)
        told |= {"ids_before_text": json.dumps(prompt.bound.prefix_ids), "ids_behind_text": json.dumps(behind[:size])}
        if infix:
            told["ids_behind_prompt"] = json.dumps(behind[size:])
    return told


CODE = f"""\
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, DynamicCache

kv = load_file("{FOLDER}/{FILE}")
cache = DynamicCache()  # a new one for each row: it grows
for layer in range(len(kv) // 2):
    cache.update(kv[f"layers.{{layer}}.key"], kv[f"layers.{{layer}}.value"], layer)
model = AutoModelForCausalLM.from_pretrained("{BASE}")
# then model(input_ids=…, past_key_values=cache) with the ids of a row's prompt"""

CODE_OF_INFIX = f"""\
from safetensors.torch import load_file

kv = load_file("{FOLDER}/{FILE}")

def put(cache, position):  # `cache` holds the row's tokens 0 to position - 1
    for layer in range(len(kv) // 4):
        key, value, rates, quarter = (kv[f"layers.{{layer}}.{{n}}"] for n in ("key", "value", "rates", "quarter"))
        angle = position * rates
        cache.update((key.float() * angle.cos() + key.float() * angle.sin() @ quarter).to(key.dtype), value, layer)
# then model(input_ids=…, past_key_values=cache, position_ids=…) with the ids behind it, the first at `position`"""


def _what(kv: Tensor, infix: bool) -> str:
    layers, _, heads, tokens, size = kv.shape
    where = (
        "They stand between a row's text and the last of its prompt, and take no position. `layers.{i}.rates` and "
        "`layers.{i}.quarter` rotate the keys to the position of the token behind them."
        if infix
        else f"They stand at positions 0 to {tokens - 1}; the row's prompt begins at position {tokens}."
    )
    return (
        f"Keys and values of {tokens} tokens in {layers} layers: `layers.{{i}}.key` and `layers.{{i}}.value` in `{FILE}`, "
        f"each [1, {heads}, {tokens}, {size}]. {where}"
    )


def _notes(metadata: Mapping[str, str], held: Artifact, reach: str) -> tuple[str, ...]:
    notes = [f"Numbers are {metadata['dtype']}, as the base was held for the export."]
    if "ids_before_text" in metadata:
        before, behind = metadata["ids_before_text"], metadata["ids_behind_text"]
        last = metadata.get("ids_behind_prompt")
        more = f"; behind the infix stand `{last}`" if last else ""
        notes.append(f"A row's prompt is the ids `{before}`, those of its text, and `{behind}`{more}.")
    if held.manifest.layout.place == "infix":
        notes.append(
            "Positions of later tokens count on without the infix; transformers by itself would count it, too."
        )
    if reach != "peft" and held.manifest.layout.stores == "kv":
        window = reach.removeprefix("peft within the window of ")
        notes.append(
            f"It answers as here in rows of at most {window}, these among them: a sliding window hides the rest."
        )
    return tuple(notes)
