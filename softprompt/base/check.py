"""Proof on the spot that a base runs exactly on our engine: packed rows give what the plain model gives.

The plain model is a copy of the modules into which nothing of ours was put, in transformers' own eager attention (`copies.py`).
One row is longer than any sliding window, which both sides narrow for it; rows have company, and stand behind keys and values
that were computed before. Weights in half precision are proved as fp32, and then their rounding is compared with the plain
model's own. A few short forwards, done at every load: what the engine does not run exactly is refused in one line.
"""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..errors import BaseModelError
from . import quantized
from .compare import SIZES, Compared, compare, longest, mark_crossing, rows_of
from .copies import HALVES, has_windows, in_fp32, narrow_windows, set_attention, untouched
from .families import number_attention
from .layers import find_layers, gate_layers
from .reasons import MISFITS, difference, misfit, of_device, refused
from .rotary import Rotary, find_rotary
from .shape import BaseShape

if TYPE_CHECKING:
    from .model import Base

_WINDOW = 6  # to which the others are narrowed
_OWN_SIZES = (70, 40)  # where the model sees to padding by itself, perhaps block by block
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}  # of the logits' own spread
_EXACT = 1e-3  # of the spread, in fp32
_ROUNDINGS = 3.0  # times the plain model's own rounding


class Proven(NamedTuple):
    """What the check found: whether `first` and `stop` work, how keys rotate, and sizes and the first of an encoder side."""

    gated: bool
    rotary: Rotary | None
    encoder: tuple[BaseShape, bool] | None


def check_base(base: Base, plain: Any) -> Proven:
    """Put gates round a base's layers, prove that it runs exactly, and let it know its shape.

    Args:
        plain: an untouched copy of its model.

    Raises:
        BaseModelError: it does not.
    """
    with quantized.whole(base.model), quantized.whole(plain):
        return _check(base, plain)


def _check(base: Base, plain: Any) -> Proven:
    count = base.config.num_hidden_layers if base.kind == "causal" else None
    encoder = base.encoder_side() if base.kind == "seq2seq" else None
    sides = [base] if encoder is None else [base, encoder]
    gates = [gate_layers(side.body, count) for side in sides]
    if base.kind != "causal":
        for side in sides:
            number_attention(find_layers(side.body) or ())
    try:
        found, ours = _prove(base, plain)
    except BaseModelError:
        if not base.bidirectional:
            raise
        found, ours = _prove_with_own_mask(base)
    base.shape = found.shape  # which says how keys and values are recorded from now on
    gated = gates[0] and _gates_work(ours, found.shape.layers)
    if encoder is None or found.encoder is None:
        rotary = find_rotary(base) if base.kind == "causal" else None
        return Proven(gated, rotary, None)
    of_encoder = gates[1] and _gates_work(ours.encoder_side(), found.encoder.layers)
    return Proven(gated, None, (found.encoder, of_encoder))


def tolerance(dtype: torch.dtype, logits: torch.Tensor) -> float:
    """How far two ways to the same logits may differ in this type: a part of their own spread."""
    return _TOLERANCE[dtype] * max(1.0, logits.std().item())


@torch.no_grad()
def _prove(base: Base, plain: Any) -> tuple[Compared, Base]:
    """Compare the engine with the plain model; also gives what was compared: the base, or a copy with narrow windows.

    Raises:
        BaseModelError: logits (of an encoder: states) differ, or its layers do not run on the engine.
    """
    halves = base.dtype in HALVES
    try:
        if base.kind == "seq2seq":
            mark_crossing(base, plain)
        ours, least = base, SIZES[0]
        if has_windows(plain, _WINDOW):
            ours, least = base.branch(), _WINDOW + 8
            for model in (ours.model, plain):
                narrow_windows(model, _WINDOW)
        longest_row = longest(base, plain, least)
        rows = rows_of(base, _OWN_SIZES if base.own_mask else (longest_row, SIZES[1]))
        with contextlib.ExitStack() as stack:
            if halves:
                ours = copy.copy(ours)
                ours.dtype = torch.float32
                for model in (ours.model, plain):
                    stack.enter_context(in_fp32(model))
            found = compare(ours, plain, rows)
            allowed = _EXACT * found.plain.std().item()
            if not found.off <= allowed:
                raise difference(base, plain, rows, found.off, allowed)
        if halves:
            ours.dtype = base.dtype
            _check_rounding(base, compare(ours, plain, rows), found.plain)
    except MISFITS as error:
        raise misfit(base, plain, error) from error
    return found, ours


def _check_rounding(base: Base, rounded: Compared, exact: Tensor) -> None:
    """Refuse a base whose rounding on the engine is worse than its own.

    Args:
        exact: logits of the plain model with the same weights in fp32.
    """
    # the median of the tokens: where a router is undecided, rounding sends a token to other experts
    ours, plain = ((x - exact).abs().mean(-1).median().item() for x in (rounded.ours, rounded.plain))
    allowed = _ROUNDINGS * plain + torch.finfo(base.dtype).eps * exact.std().item()
    if not ours <= allowed:
        how = f"in {base.label_of_dtype} the engine is {ours:.3g} off, the plain model {plain:.3g}"
        raise refused(base, f"{how}, from the same weights in fp32")


def _prove_with_own_mask(base: Base) -> tuple[Compared, Base]:
    """The same for a bidirectional base that attends by itself: rows run in its way, and nothing stands in front of them."""
    base.own_mask = True
    set_attention(base.model, "eager")
    return _prove(base, untouched(base.model))


@torch.no_grad()
def _gates_work(base: Base, layers: int) -> bool:
    """Whether stopping at a layer and going on from its kept states gives what running all layers gives."""
    ids = torch.tensor([5, 9, 4, 7], device=base.device)
    zero = torch.zeros(1, dtype=torch.long, device=base.device)
    middle = max(1, layers // 2)
    states = None
    if base.kind == "seq2seq":
        encoder = base.encoder_side()
        states = [encoder.forward(encoder.embed(ids), [4], zero).states]
    try:
        whole = base.forward(base.embed(ids), [4], zero, encoder_hidden_states=states).states
        below = base.forward(base.embed(ids), [4], zero, stop=middle, encoder_hidden_states=states).states
        above = base.forward(below, [4], zero, first=middle, encoder_hidden_states=states).states
    except MISFITS as error:
        if of_device(error):
            raise misfit(base, base.model, error) from error
        return False  # its layers are called in a way that we do not know
    allowed = max(_EXACT, 2 * torch.finfo(base.dtype).eps) * whole.abs().max()
    return bool((above - whole).abs().max() <= allowed)
