"""Proof on the spot that a base runs exactly on our engine: packed rows give what the plain model gives.

Cheap (two forwards of a few tokens) and done at every load, so an architecture that the attention hook does not reach,
or reaches in a way we do not know, is refused in one line instead of computing something else in silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..errors import BaseModelError
from .attention import Block

if TYPE_CHECKING:
    from .model import Base, BaseShape

_LAYER_TYPES = {"full_attention", "sliding_attention"}
_ROPE_BY_LENGTH = {"dynamic", "longrope"}
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}  # of the logits' own spread


def tolerance(dtype: torch.dtype, logits: torch.Tensor) -> float:
    """How far two ways to the same logits may differ in this type: a part of their own spread."""
    return _TOLERANCE[dtype] * max(1.0, logits.std().item())


def check_supported(config: Any, name: str) -> None:
    """Refuse what cannot be exact and what a few tokens would not show: other layer types, length-dependent positions.

    Raises:
        BaseModelError: naming what the engine cannot run.
    """
    text = config.get_text_config(decoder=True)
    other = set(getattr(text, "layer_types", None) or []) - _LAYER_TYPES
    if rope := sorted(_rope_types(getattr(text, "rope_parameters", None)) & _ROPE_BY_LENGTH):
        raise BaseModelError(
            f"base {name!r} has position encodings of type {rope[0]!r}, which change with the length of the sequence, so a "
            "text's keys cannot be kept; take a base with fixed ones"
        )
    if other:
        raise BaseModelError(
            f"base {name!r} has layers of type {', '.join(sorted(other))}; "
            f"the engine is exact for {' and '.join(sorted(_LAYER_TYPES))} only"
        )


def _rope_types(parameters: Any) -> set[str]:
    """Types of rotary encodings in a config: one for the model, or one per kind of layer."""
    if not isinstance(parameters, dict):
        return set()
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    return {str(item.get("rope_type")) for item in [parameters, *nested]}


@torch.no_grad()
def check_exact(base: Base) -> BaseShape:
    """Compare two ragged rows, packed, with K/V reused, against the plain model.

    Returns:
        The base's sizes, read from the real key/value tensors rather than from the config.

    Raises:
        BaseModelError: the logits differ, or keys and values have shapes that cannot be kept together.
    """
    from .model import BaseShape

    vocabulary = base.model.get_input_embeddings().weight.shape[0]
    rows = [[(7 * i + 3 * row + 5) % vocabulary for i in range(size)] for row, size in enumerate((9, 5))]
    plain = torch.cat([base.model(torch.tensor([ids], device=base.device)).logits[0].float() for ids in rows])
    zero = torch.zeros(2, dtype=torch.long, device=base.device)
    ids = torch.tensor(rows[0] + rows[1], device=base.device)
    try:
        whole = base.forward(base.embed(ids), [9, 5], zero, record=True)
        kv = whole.kv or []
        packed = base.logits(whole.states)
        shape = BaseShape(len(kv), kv[0].shape[2], kv[0].shape[4], whole.states.shape[-1], plain.shape[-1])
        if any(layer.shape != kv[0].shape for layer in kv) or shape.layers != base.config.num_hidden_layers:
            raise ValueError("its layers have key/value heads of different shapes")
        head = [layer[:, :1, :, :4] for layer in kv]
        block = Block(head, torch.arange(4, device=base.device)[None])
        tail = base.forward(base.embed(ids[4:9]), [5], zero[:1] + 4, [block])
    except (TypeError, IndexError, AttributeError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BaseModelError(
            f"base {base.name!r}: the attention hook does not fit this architecture ({reason})"
        ) from None
    allowed = tolerance(base.dtype, plain)
    off = max((packed - plain).abs().max().item(), (base.logits(tail.states) - plain[4:9]).abs().max().item())
    if not off <= allowed:
        raise BaseModelError(
            f"base {base.name!r}: the engine's logits differ from the plain model's by {off:.3g} (allowed {allowed:.3g}); "
            f"{type(base.model).__name__} is not supported"
        )
    return shape


@torch.no_grad()
def check_layers(base: Base) -> bool:
    """Whether stopping at a layer and going on from its kept states gives what running all layers gives."""
    ids = torch.tensor([5, 9, 4, 7], device=base.device)
    zero = torch.zeros(1, dtype=torch.long, device=base.device)
    middle = max(1, base.shape.layers // 2)
    try:
        whole = base.forward(base.embed(ids), [4], zero).states
        below = base.forward(base.embed(ids), [4], zero, stop=middle).states
        above = base.forward(below, [4], zero, first=middle).states
    except (TypeError, AttributeError, RuntimeError, AssertionError):
        return False  # its layers are called in a way that we do not know
    return bool((above - whole).abs().max() <= _TOLERANCE[base.dtype] * whole.abs().max())
