"""A few rows through the engine and through the plain model: what the check at load compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .attention import Block
from .families import find_body, per_layer, positions_of
from .interface import CROSS
from .layers import find_layers
from .reasons import not_finite, refused
from .shape import BaseShape, Hidden

if TYPE_CHECKING:
    from .model import Base

SIZES = (9, 5)  # tokens of the rows, where no window has to be crossed
_LONGEST_WINDOW = 512  # that is crossed as it is, where a config does not let it be narrowed


class Compared(NamedTuple):
    """The engine's logits (of an encoder: states) of all rows [N, V], the plain model's, and the sizes that were found."""

    ours: Tensor
    plain: Tensor
    shape: BaseShape
    encoder: BaseShape | None = None

    @property
    def off(self) -> float:
        """The largest difference."""
        return (self.ours - self.plain).abs().max().item()


def compare(ours: Base, plain: Any, rows: Sequence[Tensor]) -> Compared:
    """Run rows [n] of ids on the engine and on the plain model.

    Args:
        plain: the model into which nothing of ours was put.
        rows: two, of different lengths.

    Raises:
        BaseModelError: the plain model's numbers are none.
    """
    found = _compare_causal(ours, plain, rows) if ours.kind == "causal" else _compare_grid(ours, plain, rows)
    if not found.plain.isfinite().all():
        raise not_finite(ours)
    return found


def _compare_causal(ours: Base, plain: Any, rows: Sequence[Tensor]) -> Compared:
    """Two ragged rows, then the end of the first behind its own keys and values, beside the second as a whole.

    The second's embeddings are no token's, as learned ones are.
    """
    inputs = [ours.embed(rows[0]), 0.9 * ours.embed(rows[1])]
    given = [{"input_ids": rows[0][None]}, {"inputs_embeds": inputs[1][None].clone()}]  # CTRL scales in place
    wants = [plain(**one, use_cache=False).logits[0].float() for one in given]
    sizes = [len(ids) for ids in rows]
    zero = torch.zeros(2, dtype=torch.long, device=ours.device)
    whole = ours.forward(torch.cat(inputs), sizes, zero, record=True)
    shape = _shape(ours, whole, wants[0].shape[-1])
    cut = sizes[0] - SIZES[1]
    columns = torch.arange(cut, device=ours.device)
    valid = torch.tensor([[True], [False]], device=ours.device).expand(2, cut)
    kept = Block([layer[:, :, :, :cut] for layer in whole.kv or []], columns.expand(2, -1), valid)
    starts = torch.tensor([cut, 0], device=ours.device)
    behind = ours.forward(torch.cat([inputs[0][cut:], inputs[1]]), [SIZES[1], sizes[1]], starts, [kept])
    logits = torch.cat([ours.logits(whole.states), ours.logits(behind.states)])
    return Compared(logits, torch.cat([*wants, wants[0][cut:], wants[1]]), shape)


def _compare_grid(ours: Base, plain: Any, rows: Sequence[Tensor]) -> Compared:
    """Two ragged rows of a bidirectional or sequence-to-sequence base, with the plain model, which runs each alone."""
    sizes = [len(ids) for ids in rows]
    zero = torch.zeros(2, dtype=torch.long, device=ours.device)
    if ours.kind != "seq2seq":
        want = torch.cat([_plain(ours, plain, ids) for ids in rows])
        whole = ours.forward(ours.embed(torch.cat(tuple(rows))), sizes, zero, record=True)
        found = whole.states.float() if ours.kind == "encoder" else ours.logits(whole.states)
        return Compared(found, want, _shape(ours, whole, found.shape[-1]))
    encoder, outs = ours.encoder_side(), rows_of(ours, sizes[::-1])
    want = torch.cat([_plain(ours, plain, *both) for both in zip(rows, outs, strict=True)])
    read = encoder.forward(encoder.embed(torch.cat(tuple(rows))), sizes, zero, record=True)
    states = read.states.split(sizes)
    whole = ours.forward(ours.embed(torch.cat(outs)), sizes[::-1], zero, record=True, encoder_hidden_states=states)
    found = ours.logits(whole.states)
    return Compared(found, want, _shape(ours, whole, found.shape[-1]), _shape(encoder, read, found.shape[-1]))


def longest(base: Base, plain: Any, least: int) -> int:
    """Tokens that cross every sliding window, also one that a config computes (ModernBERT)."""
    config = getattr(find_body(plain, base.kind, base.kind == "seq2seq"), "config", None)
    # those of single layers are narrow by now
    window = 0 if per_layer(config, "sliding_window") else getattr(config, "sliding_window", None) or 0
    if window > _LONGEST_WINDOW:
        reason = f"its sliding window of {window} tokens is too long to be crossed at every load"
        raise refused(base, f"{reason}, which takes up to {_LONGEST_WINDOW}")
    return max(least, min(window + 8, positions_of(base.config, base.body)))


def rows_of(base: Base, sizes: Sequence[int]) -> list[Tensor]:
    """Ids without the padding token, which RoBERTa gives no position."""
    vocabulary = base.model.get_input_embeddings().weight.shape[0]
    padding = getattr(base.config, "pad_token_id", None)
    first = 5 if vocabulary > 50 else 0  # others may be padding to a family's code, whatever its config says (MPNet)
    ids = [i for i in range(first, min(vocabulary, 1000)) if i != padding]
    rows = [[ids[(7 * i + 3 * row + 5) % len(ids)] for i in range(size)] for row, size in enumerate(sizes)]
    return [torch.tensor(row, device=base.device) for row in rows]


def _plain(base: Base, plain: Any, ids: Tensor, out: Tensor | None = None) -> Tensor:
    """States or logits of one row from the model's own forward."""
    if base.kind == "encoder":
        return find_body(plain, base.kind)(input_ids=ids[None]).last_hidden_state[0].float()
    if out is None:
        return plain(input_ids=ids[None]).logits[0].float()
    return plain(input_ids=ids[None], decoder_input_ids=out[None], use_cache=False).logits[0].float()


def mark_crossing(base: Base, plain: Any) -> None:
    """Mark the modules of a decoder that attend to an encoder's states, as the plain model's own forward shows them."""
    crossing: set[str] = set()

    def watch(name: str) -> Any:
        def see(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            if any(kwargs.get(key) is not None for key in ("key_value_states", "encoder_hidden_states")):
                crossing.add(name)

        return see

    modules = find_body(plain, base.kind).named_modules()
    handles = [module.register_forward_pre_hook(watch(name), with_kwargs=True) for name, module in modules]
    try:
        _plain(base, plain, *rows_of(base, (4, 4)))
    finally:
        for handle in handles:
            handle.remove()
    for name in crossing:
        setattr(base.body.get_submodule(name), CROSS, True)


def _shape(base: Base, whole: Hidden, vocabulary: int) -> BaseShape:
    """Sizes, read from the real keys and values rather than from the config."""
    kv, layers = whole.kv or [], find_layers(base.body)
    hidden = whole.states.shape[-1]
    if base.kind == "encoder":
        vocabulary = base.model.get_input_embeddings().weight.shape[0]
    embedded = base.model.get_input_embeddings().weight.shape[1]
    other = None if embedded == hidden else embedded
    if base.own_mask:
        return BaseShape(base.config.num_hidden_layers, 0, 0, hidden, vocabulary, other)
    count = base.config.num_hidden_layers if base.kind == "causal" else len(kv if layers is None else layers)
    if len(kv) != count:
        raise ValueError("not each layer gave keys and values")
    heads, size = (max(layer.shape[place] for layer in kv) for place in (2, 4))
    even = whole.even and len({layer.shape for layer in kv}) == 1
    return BaseShape(count, heads, size, hidden, vocabulary, other, even)
