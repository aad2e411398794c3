"""Where a learned prompt starts. It decides much of where it ends (Lester et al. 2021, §3.2), so text is the default."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..artifact import check_base, load
from ..base import Base
from ..errors import ConfigError
from ..tasks import BoundTask
from .base import LearnedTensor, make_method, text_ids

Init = Literal["text", "vocabulary", "labels", "random", "artifact"]
_COMMON = 5000  # Lester et al. 2021 sample from the 5,000 most common tokens; byte-pair ids are ordered by merge rank


def start_text(bound: BoundTask, text: str | None) -> str:
    """The text to start from: the given one, else the task's instruction, else one made from its labels."""
    template = bound.task.spec.template
    if text or template.instruction.strip():
        return text or template.instruction
    words = [word for words in bound.task.spec.verbalizer.values() for word in words]
    return f"Answer with one of: {', '.join(words)}. " if words else "Read the input and answer. "


def init_embeddings(
    base: Base, bound: BoundTask, how: Init, length: int, seed: int, text: str | None = None, source: str | None = None
) -> Tensor:
    """Embeddings [P, H] to start from.

    Args:
        how: `text` (embeddings of a text), `vocabulary` (sampled common tokens), `labels` (the label words, the rest
            sampled), `random` (normal with the vocabulary's spread), `artifact` (another soft prompt).

    Raises:
        ConfigError: nothing to start from.
    """
    generator = torch.Generator().manual_seed(seed)
    table = base.model.get_input_embeddings().weight
    if how == "artifact":
        return _from_artifact(base, source, (length, base.shape.hidden_size))
    if how == "random":
        # embed() and not the table: some models scale in the layer
        some = base.embed(torch.arange(min(_COMMON, table.shape[0]), device=base.device)).float()
        return torch.randn(length, some.shape[1], generator=generator).to(some.device) * some.std()
    if how == "text":
        ids = text_ids(base, start_text(bound, text), length, "method.text")
    else:
        special = set(base.tokenizer.all_special_ids)
        common = [token for token in range(min(_COMMON + len(special), table.shape[0])) if token not in special]
        picks = torch.randperm(len(common), generator=generator)
        sampled = [common[int(place)] for place in picks.repeat(length // len(common) + 1)[:length]]
        if how == "labels":
            words = [word for words in bound.task.spec.verbalizer.values() for word in words]
            own = [token for word in words for token in bound.answer(word)]
            sampled = (own + sampled)[:length]
        ids = torch.tensor(sampled, device=base.device)
    with torch.no_grad():
        return base.embed(ids).float()


def init_kv(
    base: Base,
    bound: BoundTask,
    how: Init,
    length: int,
    seed: int,
    text: str | None = None,
    source: str | None = None,
    place: str = "front",
) -> Tensor:
    """Keys and values [L, 2, G, P, D] to start from: those of `init_embeddings` run through the base at positions 0..P-1.

    Args:
        place: where they will stand; K/V of an artifact are taken from the same place only, as keys are relative to it.
    """
    s = base.shape
    if how == "artifact":
        return _from_artifact(base, source, (s.layers, 2, s.kv_heads, length, s.head_size), place)
    embeddings = init_embeddings(base, bound, how, length, seed, text, source)
    with torch.no_grad():
        hidden = base.forward(embeddings, [length], torch.zeros(1, dtype=torch.long, device=base.device), record=True)
    assert hidden.kv is not None
    return torch.stack([layer[:, 0] for layer in hidden.kv]).float()


def _from_artifact(base: Base, source: str | None, want: tuple[int, ...], place: str | None = None) -> Tensor:
    if not source:
        raise ConfigError("method.init is 'artifact': name the folder in method.artifact")
    artifact = load(Path(source))
    check_base(artifact.manifest, base.digest, base.tokenizer_digest, base.name)
    method = make_method(artifact.manifest.method, source)
    method.restore(artifact.tensors, base)
    if not isinstance(method, LearnedTensor):
        raise ConfigError(f"method.artifact {source!r} is a {method.spec.name!r} and holds no learned prompt")
    value = method.value.detach()
    if tuple(value.shape) != want:
        raise ConfigError(f"method.artifact {source!r} holds {list(value.shape)}, this method starts from {list(want)}")
    if place not in (None, method.place):
        raise ConfigError(
            f"method.artifact {source!r} holds keys and values that stand {method.place}, these stand {place}; "
            "train from a text instead"
        )
    return value.to(base.device)
