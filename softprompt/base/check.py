"""Proof on the spot that a base runs exactly on our engine: packed rows give what the plain model gives.

Cheap (two forwards of a few tokens; of more only where a sliding window of a bidirectional model has to be crossed) and done
at every load, so an architecture that the attention hook does not reach, or reaches in a way we do not know, is refused in
one line instead of computing something else in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..errors import BaseModelError
from .attention import CROSS, Block
from .families import number_attention, positions_of
from .layers import find_layers, gate_layers
from .rotary import Rotary, find_rotary
from .shape import BaseShape, Hidden

if TYPE_CHECKING:
    from .model import Base

_LAYER_TYPES = {"full_attention", "sliding_attention"}
_ROPE_BY_LENGTH = {"dynamic", "longrope"}
_LONGEST_WINDOW = 512  # of a bidirectional model; a longer one costs too much to be crossed at every load
_MISFITS = (TypeError, IndexError, AttributeError, RuntimeError, ValueError)
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}  # of the logits' own spread


class Proven(NamedTuple):
    """What the check found: sizes, whether `first` and `stop` work, how keys turn, and the first two of an encoder side."""

    shape: BaseShape
    gated: bool
    rotary: Rotary | None
    encoder: tuple[BaseShape, bool] | None


def check_base(base: Base) -> Proven:
    """Put gates round a base's layers, and prove that it runs exactly.

    Raises:
        BaseModelError: it does not.
    """
    if base.kind == "causal":
        gated = gate_layers(base.body, base.config.num_hidden_layers)
        shape = check_exact(base)
        return Proven(shape, gated and check_layers(base, shape.layers), find_rotary(base), None)
    encoder = base.encoder_side() if base.kind == "seq2seq" else None
    sides = [base] if encoder is None else [base, encoder]
    gates = [gate_layers(side.body) for side in sides]
    for side in sides:
        number_attention(find_layers(side.body) or ())
    shape, of_encoder = check_rows(base, encoder)
    gated = gates[0] and check_layers(base, shape.layers, encoder)
    if encoder is None or of_encoder is None:
        return Proven(shape, gated, None, None)
    return Proven(shape, gated, None, (of_encoder, gates[1] and check_layers(encoder, of_encoder.layers)))


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
    except _MISFITS as error:
        raise _misfit(base, error) from None
    off = max((packed - plain).abs().max().item(), (base.logits(tail.states) - plain[4:9]).abs().max().item())
    _refuse_difference(base, off, plain)
    return shape


def _misfit(base: Base, error: Exception) -> BaseModelError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return BaseModelError(f"base {base.name!r}: the attention hook does not fit this architecture ({reason})")


def _refuse_difference(base: Base, off: float, plain: Tensor) -> None:
    if not off <= (allowed := tolerance(base.dtype, plain)):
        what = "states" if base.kind == "encoder" else "logits"
        raise BaseModelError(
            f"base {base.name!r}: the engine's {what} differ from the plain model's by {off:.3g} (allowed {allowed:.3g}); "
            f"{type(base.model).__name__} is not supported"
        )


@torch.no_grad()
def check_rows(base: Base, encoder: Base | None) -> tuple[BaseShape, BaseShape | None]:
    """Compare two ragged rows of a bidirectional or sequence-to-sequence base with the plain model, which runs each alone.

    Args:
        encoder: the encoder side of a sequence-to-sequence base.

    Returns:
        The sizes of the base, and those of its encoder side.

    Raises:
        BaseModelError: states (of an encoder) or logits differ, or keys and values cannot be kept together.
    """
    source = encoder or base
    sizes = [_longest(source), 5]
    rows, outs = _rows(base, sizes), _rows(base, [4, 6])
    zero = torch.zeros(2, dtype=torch.long, device=base.device)
    try:
        if encoder is None:
            plain = torch.cat([_plain(base, ids) for ids in rows])
            whole = base.forward(base.embed(torch.cat(rows)), sizes, zero, record=True)
            found = whole.states.float() if base.kind == "encoder" else base.logits(whole.states)
            shapes: tuple[BaseShape, BaseShape | None] = (_shape(base, whole, found.shape[-1]), None)
        else:
            plain = torch.cat([_plain(base, *both) for both in zip(rows, outs, strict=True)])
            read = encoder.forward(encoder.embed(torch.cat(rows)), sizes, zero, record=True)
            memory = read.states.split(sizes)
            whole = base.forward(base.embed(torch.cat(outs)), [4, 6], zero, record=True, memory=memory)
            found = base.logits(whole.states)
            shapes = _shape(base, whole, found.shape[-1]), _shape(encoder, read, found.shape[-1])
    except _MISFITS as error:
        raise _misfit(base, error) from None
    _refuse_difference(base, (found - plain).abs().max().item(), plain)
    return shapes


def _longest(base: Base) -> int:
    """Tokens that cross every sliding window."""
    window = getattr(base.config, "sliding_window", None)
    if "sliding_attention" not in (getattr(base.config, "layer_types", None) or []) or not window:
        return 9
    if window > _LONGEST_WINDOW:
        raise BaseModelError(
            f"base {base.name!r} has a sliding window of {window} tokens, which is not proved exact at load; the engine takes "
            f"bidirectional windows of up to {_LONGEST_WINDOW}"
        )
    return max(9, min(window + 8, positions_of(base.config, base.body)))


def _rows(base: Base, sizes: Sequence[int]) -> list[Tensor]:
    """Ids without the padding token, which RoBERTa gives no position."""
    vocabulary = base.model.get_input_embeddings().weight.shape[0]
    padding = getattr(base.config, "pad_token_id", None)
    ids = [i for i in range(vocabulary) if i != padding]
    rows = [[ids[(7 * i + 3 * row + 5) % len(ids)] for i in range(size)] for row, size in enumerate(sizes)]
    return [torch.tensor(row, device=base.device) for row in rows]


def _plain(base: Base, ids: Tensor, out: Tensor | None = None) -> Tensor:
    """States or logits of one row from the model's own forward, which also shows which of its modules attend to an encoder."""
    if base.kind == "encoder":
        return base.body(input_ids=ids[None]).last_hidden_state[0].float()
    if out is None:
        return base.model(input_ids=ids[None]).logits[0].float()
    handles = [module.register_forward_pre_hook(_mark, with_kwargs=True) for module in base.body.modules()]
    try:
        return base.model(input_ids=ids[None], decoder_input_ids=out[None], use_cache=False).logits[0].float()
    finally:
        for handle in handles:
            handle.remove()


def _mark(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
    if any(kwargs.get(name) is not None for name in ("key_value_states", "encoder_hidden_states")):
        setattr(module, CROSS, True)


def _shape(base: Base, whole: Hidden, vocabulary: int) -> BaseShape:
    kv, layers = whole.kv or [], find_layers(base.body)
    if not kv:
        raise ValueError("its layers do not call it")
    if any(layer.shape != kv[0].shape for layer in kv) or (layers is not None and len(layers) != len(kv)):
        raise ValueError("its layers have key/value heads of different shapes")
    if base.kind == "encoder":
        vocabulary = base.model.get_input_embeddings().weight.shape[0]
    return BaseShape(len(kv), kv[0].shape[2], kv[0].shape[4], whole.states.shape[-1], vocabulary)


@torch.no_grad()
def check_layers(base: Base, layers: int, encoder: Base | None = None) -> bool:
    """Whether stopping at a layer and going on from its kept states gives what running all layers gives."""
    ids = torch.tensor([5, 9, 4, 7], device=base.device)
    zero = torch.zeros(1, dtype=torch.long, device=base.device)
    middle = max(1, layers // 2)
    memory = None if encoder is None else [encoder.forward(base.embed(ids), [4], zero).states]
    try:
        whole = base.forward(base.embed(ids), [4], zero, memory=memory).states
        below = base.forward(base.embed(ids), [4], zero, stop=middle, memory=memory).states
        above = base.forward(below, [4], zero, first=middle, memory=memory).states
    except (TypeError, AttributeError, RuntimeError, AssertionError, ValueError):
        return False  # its layers are called in a way that we do not know
    return bool((above - whole).abs().max() <= _TOLERANCE[base.dtype] * whole.abs().max())
