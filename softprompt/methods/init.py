"""Where a learned prompt starts. It decides much of where it ends (Lester et al. 2021, §3.2), so text is the default."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..artifact import check_base, load
from ..base import Base
from ..engine import kv_of
from ..errors import ConfigError
from ..tasks import BoundTask
from .base import LearnedTensor, make_method, text_ids

Init = Literal["text", "vocabulary", "labels", "random", "artifact", "normal", "any_tokens", "zero"]
"""The last three are where PEFT starts; see `init_embeddings` and `init_kv`."""
_COMMON = 5000  # Lester et al. 2021 sample from the 5,000 most common tokens; byte-pair ids are ordered by merge rank


def start_text(bound: BoundTask, text: str | None) -> str:
    """The text to start from: the given one, else the task's instruction, else one made from its labels."""
    instruction = bound.task.spec.template.plain_instruction
    if text or instruction.strip():
        return text or instruction
    words = bound.task.words
    return f"Answer with one of: {', '.join(words)}. " if words else "Read the input and answer. "


def init_embeddings(
    base: Base,
    bound: BoundTask,
    how: Init,
    length: int | None,
    seed: int,
    text: str | None = None,
    source: str | None = None,
) -> Tensor:
    """Embeddings [P, H] to start from.

    Args:
        length: P; None: that of the whole text (see `text_ids`), or of the artifact.
        how: where they start. `text`: embeddings of a text. `vocabulary`: sampled common tokens. `labels`: the label
            words, the rest sampled. `random`: normal with the vocabulary's spread. `artifact`: another soft prompt.
            `normal`: mean 0, variance 1. `any_tokens`: sampled from the whole vocabulary, each time anew. `zero`:
            zeros.

    Raises:
        ConfigError: nothing to start from, or more tokens than the base has positions for.
    """
    if (length or 0) > base.max_positions:
        raise ConfigError(
            f"method.length is {length}, but base {base.name!r} has {base.max_positions} positions in all; make it shorter"
        )
    generator = torch.Generator().manual_seed(seed)
    table = base.model.get_input_embeddings().weight
    if how == "artifact":
        return _from_artifact(base, source, (length, base.shape.embedded))
    if how == "text":
        ids = text_ids(base, start_text(bound, text), length, "method.text")
        return _embedded(base, ids)
    assert length is not None, "only a text and an artifact have a length of their own"
    if how in ("normal", "zero"):
        return _drawn(how, (length, base.shape.embedded), generator).to(base.device)
    if how == "any_tokens":
        return _embedded(base, torch.randint(table.shape[0], (length,), generator=generator).to(base.device))
    if how == "random":
        # embed() and not the table: some models scale in the layer
        some = base.embed(torch.arange(min(_COMMON, table.shape[0]), device=base.device)).float()
        return torch.randn(length, some.shape[1], generator=generator).to(some.device) * some.std()
    special = set(base.tokenizer.all_special_ids)
    common = [token for token in range(min(_COMMON + len(special), table.shape[0])) if token not in special]
    picks = torch.randperm(len(common), generator=generator)
    sampled = [common[int(place)] for place in picks.repeat(length // len(common) + 1)[:length]]
    if how == "labels":
        own = [token for word in bound.task.words for token in bound.answer(word)]
        sampled = (own + sampled)[:length]
    return _embedded(base, torch.tensor(sampled, device=base.device))


def init_groups(
    base: Base, bound: BoundTask, how: Init, seed: int, text: str | None = None, source: str | None = None
) -> Tensor:
    """Embeddings [P, H] of the template's soft slots, one after the other.

    Slots that do not say where they start share what `how` gives for their lengths together, so that no two start alike.

    Args:
        how, text, source: as in `init_embeddings`; all of them start from an `artifact`.
    """
    groups = bound.groups
    if how == "artifact":
        return init_embeddings(base, bound, how, sum(group.length for group in groups), seed, text, source)
    open_ = [group.length for group in groups if group.text is None and group.init is None]
    rest = iter(init_embeddings(base, bound, how, sum(open_), seed, text).split(open_) if open_ else ())
    found = []
    for place, group in enumerate(groups):
        if group.text is None and group.init is None:
            found.append(next(rest))
        else:
            own = group.init or "text"
            found.append(init_embeddings(base, bound, own, group.length, seed + place, group.text))
    return torch.cat(found)


def _drawn(how: Literal["normal", "zero"], shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator) if how == "normal" else torch.zeros(shape)


def _embedded(base: Base, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return base.embed(ids).float()


def init_kv(
    base: Base,
    bound: BoundTask,
    how: Init,
    length: int | None,
    seed: int,
    text: str | None = None,
    source: str | None = None,
    place: str = "front",
) -> Tensor:
    """Keys and values [L, 2, G, P, D] to start from: those of `init_embeddings` run through the base at positions 0..P-1.

    `normal` and `zero` are no embeddings: they are the keys and values themselves.

    Args:
        length: as in `init_embeddings`.
        place: where they will stand; K/V of an artifact are taken from the same place only, as keys are relative to it.
    """
    s = base.shape
    if how == "artifact":
        return _from_artifact(base, source, (s.layers, 2, s.kv_heads, length, s.head_size), place)
    if how in ("normal", "zero"):
        assert length is not None, "only a text and an artifact have a length of their own"
        shape = (s.layers, 2, s.kv_heads, length, s.head_size)
        return _drawn(how, shape, torch.Generator().manual_seed(seed)).to(base.device)
    embeddings = init_embeddings(base, bound, how, length, seed, text, source)
    if len(embeddings) > base.max_positions:
        raise ConfigError(
            f"the initial text has {len(embeddings)} tokens, base {base.name!r} has {base.max_positions} "
            "positions in all; give method.length or a shorter method.text"
        )
    return kv_of(base, embeddings)


def _from_artifact(base: Base, source: str | None, want: tuple[int | None, ...], place: str | None = None) -> Tensor:
    """The artifact's prompt, if it has the sizes wanted (None: any)."""
    if not source:
        raise ConfigError("method.init is 'artifact': name the folder in method.artifact")
    artifact = load(Path(source))
    check_base(artifact.manifest, base)
    method = make_method(artifact.manifest.method, source)
    # a head of its own (see `headed.py`) stays behind
    method.restore({name: held for name, held in artifact.tensors.items() if not name.startswith("head.")}, base)
    if not isinstance(method, LearnedTensor):
        raise ConfigError(f"method.artifact {source!r} is a {method.spec.name!r} and holds no learned prompt")
    value = method.value.detach()
    if value.dim() != len(want) or any(size not in (None, mine) for size, mine in zip(want, value.shape, strict=True)):
        raise ConfigError(
            f"method.artifact {source!r} holds {list(value.shape)}, this method starts from {list(want)}; method.length is "
            f"{value.shape[-2]} there"
        )
    if place not in (None, method.place):
        raise ConfigError(
            f"method.artifact {source!r} holds keys and values for place {method.place!r}, this method needs {place!r}; "
            "start from a text instead"
        )
    return value.to(base.device)
