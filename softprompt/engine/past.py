"""Keys and values that stand before the live tokens, and how those of many rows become one block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from ..base import Base
from ..base.attention import ALWAYS, Block
from ..base.grid import NOTHING_IN_FRONT
from ..errors import BaseModelError


@dataclass(frozen=True)
class Past:
    """K/V of one stretch of a sequence.

    Attributes:
        kv: per layer a tensor [2, 1, G, S, D]; None in layers that nothing runs through.
        positions: [S] where its tokens stand, `ALWAYS` for learned keys.
        width: how many positions the stretch takes from the row's count.
        rotated: whether learned keys that take no position are rotated to where each row has come.
    """

    kv: Sequence[Tensor | None]
    positions: Tensor
    width: int
    rotated: bool = True

    @property
    def size(self) -> int:
        """Number of keys S."""
        return self.positions.shape[0]

    def detach(self) -> Past:
        """The same without its history, for compiled prompts."""
        return replace(self, kv=[None if layer is None else layer.detach() for layer in self.kv])


def learned_past(kv: Tensor, takes_positions: bool, rotated: bool = True) -> Past:
    """A method's K/V [L, 2, G, P, D] as a `Past` that no sliding window hides."""
    size = kv.shape[3]
    positions = torch.full((size,), ALWAYS, device=kv.device)
    return Past(kv.unsqueeze(2).unbind(0), positions, size if takes_positions else 0, rotated)


@torch.no_grad()
def kv_of(base: Base, embeddings: Tensor) -> Tensor:
    """K/V [L, 2, G, S, D] of tokens [S, H] that stand alone, fp32; a decoder attends to what its encoder makes of the same.

    Raises:
        BaseModelError: a base on which no keys and values can stand in front of a text.
    """
    if base.own_mask:
        raise BaseModelError(f"base {base.name!r}: {NOTHING_IN_FRONT}")
    start = torch.zeros(1, dtype=torch.long, device=base.device)
    size = [len(embeddings)]
    states = [base.encoder.forward(embeddings, size, start).states] if base.has_decoder else None
    hidden = base.forward(embeddings, size, start, record=True, encoder_hidden_states=states)
    assert hidden.kv is not None
    return torch.stack([layer[:, 0] for layer in hidden.kv]).float()


def join(pasts: Sequence[Past]) -> Past | None:
    """One after the other along the sequence; None for an empty list."""
    if len(pasts) <= 1:
        return pasts[0] if pasts else None
    layers = [
        None if any(part is None for part in layer) else torch.cat(layer, dim=3)
        for layer in zip(*(past.kv for past in pasts), strict=True)
    ]
    return Past(layers, torch.cat([past.positions for past in pasts]), sum(past.width for past in pasts))


def _held(past: Past) -> list[Tensor]:
    """K/V of all layers; where nothing runs through a layer, nothing will look for them there."""
    return cast(list[Tensor], list(past.kv))


def block_of(pasts: Sequence[Past | None], visible_from: Sequence[int] | None = None) -> Block | None:
    """The rows' pasts as one block: kept at batch size one when all rows share the same object, else padded.

    Args:
        pasts: one per row; rows that share a past pass the same object.
        visible_from: for each row the first live token that sees it.
    """
    distinct = list({id(past): past for past in pasts if past is not None}.values())
    if not distinct:
        return None
    device = distinct[0].positions.device
    seen = None
    if visible_from is not None and any(visible_from):
        seen = torch.tensor(list(visible_from), device=device)
    if len(distinct) == 1 and all(past is distinct[0] for past in pasts):
        return Block(_held(distinct[0]), distinct[0].positions[None], None, seen)
    width = max(past.size for past in distinct)
    places = {id(past): place for place, past in enumerate(distinct)}
    held = [_held(past) for past in distinct]
    like = held[0][0]
    # a row without a past borrows place 0 and sees nothing of it
    index = torch.tensor([places.get(id(past), 0) for past in pasts], device=device)
    sizes = torch.tensor([0 if past is None else past.size for past in pasts], device=device)
    layers = []
    for layer in range(len(distinct[0].kv)):
        grid = like.new_zeros(2, len(distinct), *like.shape[2:3], width, like.shape[4])
        for place, past in enumerate(distinct):
            grid[:, place, :, : past.size] = held[place][layer][:, 0]
        layers.append(grid.index_select(1, index))
    positions = torch.full((len(distinct), width), ALWAYS, device=device)
    for place, past in enumerate(distinct):
        positions[place, : past.size] = past.positions
    valid = torch.arange(width, device=device)[None] < sizes[:, None]
    return Block(layers, positions.index_select(0, index), valid, seen)
