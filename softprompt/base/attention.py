"""Attention over rows that share their past: the one function through which K/V enters any architecture.

transformers (≥ 4.48) lets a model call a registered attention function instead of its own. Ours gets *packed* live tokens
(the rows laid end to end as one sequence, so that linear layers never see padding) and, for each row, *blocks* of keys
and values that were computed before: a shared trunk, the row's own cached text, learned K/V. Only here, inside attention,
are the rows padded. Bidirectional models and decoders with an encoder keep their rows as a padded grid throughout (`grid.py`);
their calls come through here too.

Shapes: B rows, N live tokens of all rows together, Q the longest row's live tokens, S keys, L layers, A query heads,
G key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "softprompt"
CROSS = "attends_to_encoder"  # marks the attention modules of a decoder that attend to an encoder's states
ALWAYS = -1  # position of a learned key: it stands at no place in the text, so no window hides it


KV = Tensor | tuple[Tensor, Tensor]
"""Keys and values of a layer: a pair, or one tensor [2, …]."""


@dataclass(frozen=True)
class Block:
    """Keys and values that live tokens attend to.

    Attributes:
        kv: per layer keys and values, [b, G, S, D] each (keys are already rotated), b = B, or 1 when all rows share them. Of
            a `Lead` a list that each layer puts its own into just before the rows look.
        positions: [b, S] places in the row's sequence; `ALWAYS` for keys that no sliding window may hide.
        valid: [b, S] False where a row's block is padded; None when all of it counts.
        visible_from: [b] index of the first live token that sees the block; None for all of them.
    """

    kv: Sequence[KV] | Tensor
    positions: Tensor
    valid: Tensor | None = None
    visible_from: Tensor | None = None

    @property
    def shared(self) -> bool:
        """Whether all rows see the same of it (keys may be turned for each row, where their places are the same)."""
        parts = [*self.kv[-1], self.positions, self.valid, self.visible_from]
        return all(part is None or part.shape[0] == 1 for part in parts)


@dataclass(frozen=True)
class Lead:
    """A row that runs together with the others and stands before all of them: its tokens come first, and they see it.

    So it costs no pass of its own, whose matrix products would be too small for a processor's best pace.

    Attributes:
        tokens: how many it has.
        start: position of its first.
        blocks: what lies before it, and so before the other rows as well.
    """

    tokens: int
    start: int
    blocks: Sequence[Block] = ()


class Call:
    """One forward of the base: who sees what. Handed through the model as a keyword argument, so threads never mix.

    (No dataclass: FSDP's hooks hand copies of those among a layer's arguments on, and what is recorded would be lost in them.)

    Attributes:
        lengths: live tokens of each row, all ≥ 1.
        starts: [B] position of each row's first live token.
        blocks: what lies before the live tokens, in order.
        record: keep the live tokens' keys and values.
        first, stop: layers that run; the others pass their input on.
        states: [1, N, H] what enters layer `first`, if it is not the embeddings.
        again: compute each layer again in the backward instead of keeping what it needs (gradient checkpointing).
        packed: whether frozen weights are used in their packed form.
        recorded: after the forward, per layer that ran [2, B, G, Q, D] (right-padded).
        kept: after the forward, what would enter layer `stop`, [1, N, H].
        cuts: rows that attend together, one cut after the other, where all in one grid cost more (see `groups.py`).
        lead: what the first row is, if the others stand behind it; `blocks` are what they see besides. Its cut is its own.
    """

    def __init__(
        self,
        lengths: list[int],
        starts: Tensor,
        blocks: Sequence[Block] = (),
        record: bool = False,
        first: int = 0,
        stop: int | None = None,
        states: Tensor | None = None,
        again: bool = False,
        packed: bool = False,
        cuts: Sequence[slice] = (),
        lead: Lead | None = None,
    ) -> None:
        self.lengths, self.starts, self.blocks, self.record = lengths, starts, blocks, record
        self.first, self.stop, self.states, self.again, self.packed = first, stop, states, again, packed
        self.recorded: list[Tensor] = []
        self.kept: Tensor | None = None
        self.handed: list[KV] | None = None  # this row's keys and values, where others stand behind it
        device = self.starts.device
        self.parts = [Call(lengths[cut], starts[cut], blocks) for cut in cuts]
        if lead is not None:
            self.parts[0] = Call(lengths[:1], starts[:1], lead.blocks)
            handed = self.parts[0].handed = []
            front = Block(handed, torch.arange(lead.start, lead.start + lead.tokens, device=device)[None])
            self.parts[1:] = [Call(lengths[cut], starts[cut], [*lead.blocks, front, *blocks]) for cut in cuts[1:]]
        self.tokens = [sum(part.lengths) for part in self.parts]
        self.rows, self.width = len(self.lengths), max(self.lengths)
        self.ragged = min(self.lengths) != self.width
        sizes = torch.tensor(self.lengths, device=device)
        columns = torch.arange(self.width, device=device)
        self.inside = columns[None, :] < sizes[:, None]  # [B, Q]
        self.cells = self.inside.flatten().nonzero()[:, 0]  # [N] where each packed token lies in the padded grid
        self.memory_mask: Tensor | None = None  # which of an encoder's states a row attends to (see `grid.py`)
        self._masks: dict[int | None, Tensor | None] = {}

    @property
    def positions(self) -> Tensor:
        """Position ids of the packed live tokens, [N]."""
        grid = self.starts[:, None] + torch.arange(self.width, device=self.starts.device)
        return grid[self.inside]

    def to_rows(self, packed: Tensor) -> Tensor:
        """[1, heads, N, D] → [B, heads, Q, D], zeros in the padding."""
        heads, _, size = packed.shape[1:]
        if not self.ragged:
            return packed[0].unflatten(1, (self.rows, self.width)).transpose(0, 1)
        grid = packed.new_zeros(self.rows * self.width, heads, size)
        grid = grid.index_copy(0, self.cells, packed[0].transpose(0, 1))
        return grid.unflatten(0, (self.rows, self.width)).transpose(1, 2)

    def to_packed(self, rows: Tensor) -> Tensor:
        """[B, heads, Q, D] → [1, N, heads, D], the shape that transformers expects back."""
        grid = rows.transpose(1, 2).flatten(0, 1)
        return (grid.index_select(0, self.cells) if self.ragged else grid)[None]

    def mask(self, window: int | None) -> Tensor | None:
        """Who sees whom: bool [B or 1, 1, Q, S], True where the query sees the key; None when everything is seen.

        Made once per forward for each window size, not once per layer.
        """
        if window not in self._masks:
            self._masks[window] = self._make_mask(window)
        return self._masks[window]

    def _make_mask(self, window: int | None) -> Tensor | None:
        index = torch.arange(self.width, device=self.starts.device)
        query = (self.starts[:, None] + index)[:, :, None]  # [B, Q, 1]
        parts = []
        for block in self.blocks:
            places = block.positions[:, None, :]  # [b, 1, S]
            seen = torch.ones_like(places, dtype=torch.bool).expand(-1, self.width, -1)
            if block.valid is not None:
                seen = seen & block.valid[:, None, :]
            if block.visible_from is not None:
                seen = seen & (index[None, :, None] >= block.visible_from[:, None, None])
            if window is not None:
                seen = seen & (self.near(query - places, window) | (places == ALWAYS))
            parts.append(seen)
        parts.append(self.own(window))
        rows = max(part.shape[0] for part in parts)
        mask = torch.cat([part.expand(rows, -1, -1) for part in parts], dim=2)
        return None if bool(mask.all()) else mask[:, None]

    def own(self, window: int | None) -> Tensor:
        """Which live tokens of its row a live token sees, [B or 1, Q, Q]."""
        index = torch.arange(self.width, device=self.starts.device)
        distance = index[None, :, None] - index[None, None, :]
        # padded queries see themselves and nothing reads them; padded keys come after every real query of their row
        seen = distance >= 0
        return seen if window is None else seen & self.near(distance, window)

    def near(self, distance: Tensor, window: int) -> Tensor:
        """Whether a key that lies so far behind is inside of a sliding window."""
        return distance < window

    def with_bias(self, mask: Tensor | None, bias: Tensor | None, front: int) -> Tensor | None:
        """The mask together with what a model adds to its scores by distance; packed models add nothing."""
        return mask


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    position_bias: Tensor | None = None,
    softprompt: Call | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The registered attention function. Without a `Call` it is transformers' own SDPA.

    Args:
        query: [1, A, N, D]; key, value: [1, G, N, D], keys already rotated. Of a `Grid` [B, A, Q, D] and [B, G, Q or M, D].
        position_bias: [1, A, Q, own keys], added to the scores.

    Returns:
        ([1, N, A, D] or [B, Q, A, D], None).
    """
    call = softprompt
    if call is None:
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            sliding_window=sliding_window,
            position_bias=position_bias,
            **kwargs,
        )
    if call.parts:
        cut = zip(call.parts, *(packed.split(call.tokens, dim=2) for packed in (query, key, value)), strict=True)
        how = (None, scaling, dropout, sliding_window, position_bias)
        return torch.cat([attention(module, q, k, v, *how, part)[0] for part, q, k, v in cut], dim=1), None
    query, key, value = call.to_rows(query), call.to_rows(key), call.to_rows(value)
    if getattr(module, CROSS, False):  # nothing is learned or kept between an encoder's states and a decoder
        mask = call.with_bias(call.memory_mask, position_bias, 0)
        return call.to_packed(_attend(query, key, value, mask, dropout, scaling)), None
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if call.record and len(call.recorded) == layer - call.first:  # not when a layer is computed again
        call.recorded.append(torch.stack((key, value)))
    if call.handed is not None:
        call.handed += [(key, value)] * (layer + 1 - len(call.handed))  # nothing looks at layers that do not run
        call.handed[layer] = (key, value)  # also when a layer is computed again
    past: list[tuple[Tensor, Tensor]] = [tuple(block.kv[layer]) for block in call.blocks]
    keys = _joined([*(k for k, _ in past), key], call.rows)
    values = _joined([*(v for _, v in past), value], call.rows)
    mask = call.with_bias(call.mask(sliding_window), position_bias, keys.shape[2] - key.shape[2])
    return call.to_packed(_attend(query, keys, values, mask, dropout, scaling)), None


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, dropout: float, scaling: float | None
) -> Tensor:
    """[B, A, Q, D] over [B, G, S, D] → [B, A, Q, D]; the mask is bool or added, [B or 1, 1 or A, Q or 1, S]."""
    # Grouped heads: the query heads of one group become further queries of the same keys, so K/V are never repeated.
    groups, (heads, width) = keys.shape[1], query.shape[1:3]
    folds = heads // groups
    if folds > 1:
        query = query.reshape(query.shape[0], groups, folds * width, query.shape[-1])
        if mask is not None and mask.shape[1] == heads:
            mask = mask.unflatten(1, (groups, folds)).flatten(2, 3)
        elif mask is not None and mask.shape[2] == width:
            mask = mask.repeat(1, 1, folds, 1)
    out = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return out.reshape(out.shape[0], heads, width, out.shape[-1]) if folds > 1 else out


def _joined(parts: Sequence[Tensor], rows: int) -> Tensor:
    """Parts [b, G, S, D], b = B or 1, as one [B, G, ΣS, D]."""
    return parts[0] if len(parts) == 1 else torch.cat([part.expand(rows, -1, -1, -1) for part in parts], dim=2)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
