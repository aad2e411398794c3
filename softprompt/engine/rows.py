"""Running rows: each has a past (shared prefix, cached text) and live pieces; all of a batch go through the base at once.

Training, evaluation and mixed-artifact serving are the same call with different rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from ..base import Base, Block, LivePrefix
from ..types import Ids
from .batch import BatchOutput
from .cache import RowCache
from .past import Past, block_of, join

Piece = Ids | Tensor | Past
"""Ids [n], learned embeddings [P, H] (or kept states [n, H]), or learned K/V that later live tokens see.

Such K/V takes no position; its keys are those that it would have if the next live token stood at position 0.
"""


@dataclass(frozen=True)
class EngineRow:
    """One row of a batch.

    Attributes:
        shared_prefix: what stands in front of it and of other rows; these pass the same object. It is cached keys and values,
            or a row that runs together with them.
        cached: ids whose K/V lies in the row cache and follows the prefix.
        live: what runs now, in order; at least one token.
        frozen: ids that follow the prefix and run through the frozen base, not through the method's own.
    """

    shared_prefix: Past | EngineRow | None
    cached: Ids
    live: tuple[Piece, ...]
    frozen: Ids = ()

    @property
    def live_tokens(self) -> int:
        """Tokens (ids and learned embeddings) that run now."""
        return sum(len(piece) for piece in self.live if not isinstance(piece, Past))

    @property
    def start(self) -> int:
        """Position of the first live token."""
        return (self.shared_prefix.width if self.shared_prefix else 0) + len(self.cached) + len(self.frozen)

    @property
    def width(self) -> int:
        """Position behind its last live token."""
        return self.start + self.live_tokens

    @property
    def size(self) -> int:
        """Keys that its last token sees: what its memory and attention time go with."""
        before = self.shared_prefix.size if self.shared_prefix else 0
        return before + len(self.cached) + len(self.frozen) + self.live_tokens


def run(
    base: Base,
    rows: Sequence[EngineRow],
    cache: RowCache | None = None,
    record: bool = False,
    live: Base | None = None,
    first: int = 0,
    stop: int | None = None,
    encoder_hidden_states: Sequence[Tensor] | None = None,
) -> BatchOutput:
    """One forward over a batch of rows. Gradients flow into learned pieces, shared prefixes and the live base's own weights.

    Args:
        base: frozen; what is frozen in a row runs through it.
        live: what live pieces run through, if that is not `base`.
        first, stop: only these layers run; with `first` the live pieces are states [n, H] that enter it.
        encoder_hidden_states: of each row [m, H], where the base is a sequence-to-sequence one.
    """
    live = live or base
    live_prefix, prefix_rows = _live_prefix(base, rows)
    assert live_prefix is None or not record, "what follows these rows would not find what stands before them"
    before = [_cached_block(base, rows, cache), _frozen_block(base, rows)]
    if live_prefix is None:
        before.insert(0, block_of([cast(Past | None, row.shared_prefix) for row in rows]))
    lengths = [row.live_tokens for row in rows]
    starts = torch.tensor([row.start for row in rows], device=base.device)
    blocks = [block for block in [*before, *_learned_blocks(base, rows)] if block is not None]
    inputs = _states([*prefix_rows, *rows]) if first else _embed(live, [*prefix_rows, *rows])
    hidden = live.forward(inputs, lengths, starts, blocks, record, first, stop, encoder_hidden_states, live_prefix)
    ends = torch.tensor(lengths, device=base.device).cumsum(0)
    return BatchOutput(live, hidden.states, ends, blocks, lengths, starts, hidden.kv)


def _live_prefix(base: Base, rows: Sequence[EngineRow]) -> tuple[LivePrefix | None, list[EngineRow]]:
    """The shared prefix that runs with its rows, and the row that holds its tokens; there is at most one."""
    prefix = rows[0].shared_prefix
    if not isinstance(prefix, EngineRow):
        return None, []
    assert all(row.shared_prefix is prefix and not row.cached and not row.frozen for row in rows), (
        "each needs a cached prefix"
    )
    assert base.keeps_positions and not isinstance(prefix.shared_prefix, EngineRow) and not prefix.cached
    past = block_of([prefix.shared_prefix])
    return LivePrefix(prefix.live_tokens, prefix.start, [] if past is None else [past]), [prefix]


def run_prefix(base: Base, prefix: Past | EngineRow | None, first: int = 0) -> Past | None:
    """Keys and values of a whole shared prefix: a live one is run now, and joins what lies before it.

    Args:
        first: see `run`.
    """
    if not isinstance(prefix, EngineRow):
        return prefix
    assert not isinstance(prefix.shared_prefix, EngineRow)
    batch = run(base, [prefix], record=True, first=first)
    assert batch.kv is not None
    places = torch.arange(prefix.live_tokens, device=base.device) + prefix.start
    new = Past([*[None] * first, *batch.kv], places, prefix.live_tokens)
    return join([new] if prefix.shared_prefix is None else [prefix.shared_prefix, new])


def _embed(base: Base, rows: Sequence[EngineRow]) -> Tensor:
    """Embeddings of all live tokens, packed, [N, H]; one call of the embedding layer for all ids."""
    ids: list[int] = []
    learned: list[Tensor] = []
    places: list[int] = []
    for row in rows:
        for piece in row.live:
            if isinstance(piece, Tensor):
                places.extend(range(len(ids), len(ids) + len(piece)))
                learned.append(piece)
                ids.extend([0] * len(piece))
            elif not isinstance(piece, Past):
                ids.extend(piece)
    embeddings = base.embed(torch.tensor(ids, device=base.device))
    if learned:
        values = torch.cat(learned).to(embeddings.dtype)
        embeddings = embeddings.index_copy(0, torch.tensor(places, device=base.device), values)
    return embeddings


def _states(rows: Sequence[EngineRow]) -> Tensor:
    """States of all live tokens, packed, [N, H]."""
    return torch.cat([piece for row in rows for piece in row.live if isinstance(piece, Tensor)])


def _frozen_block(base: Base, rows: Sequence[EngineRow]) -> Block | None:
    """K/V of what runs through the frozen base, in rows whose other tokens run through the method's own."""
    which = [place for place, row in enumerate(rows) if row.frozen]
    if not which:
        return None
    batch = run(base, [EngineRow(rows[place].shared_prefix, (), (rows[place].frozen,)) for place in which], record=True)
    assert batch.kv is not None and batch.starts is not None
    places = torch.tensor(which, device=base.device)
    columns = torch.arange(batch.kv[0].shape[3], device=base.device)
    kv = [layer.new_zeros(2, len(rows), *layer.shape[2:]).index_copy(1, places, layer) for layer in batch.kv]
    lengths = torch.zeros(len(rows), dtype=torch.long, device=base.device)
    lengths[places] = torch.tensor(batch.lengths, device=base.device)
    starts = torch.zeros_like(lengths)
    starts[places] = batch.starts
    return Block(kv, starts[:, None] + columns, columns[None] < lengths[:, None])


def _cached_block(base: Base, rows: Sequence[EngineRow], cache: RowCache | None) -> Block | None:
    keys = [row.cached for row in rows]
    if cache is None or not any(keys):
        return None
    kv, lengths = cache.gather(keys, base.dtype, base.device)
    index = torch.arange(kv.shape[4], device=base.device)
    starts = torch.tensor([row.shared_prefix.width if row.shared_prefix else 0 for row in rows], device=base.device)
    full = bool((lengths == kv.shape[4]).all())
    return Block(kv, starts[:, None] + index, None if full else index[None] < lengths[:, None])


def _learned_blocks(base: Base, rows: Sequence[EngineRow]) -> list[Block]:
    """Learned K/V among the live pieces: one block for the first of each row, one for the second, …

    Their keys are rotated to where the row has come by then, so that all rows see them at the same distance.
    """
    found: list[list[tuple[Past, int]]] = []
    for row in rows:
        mine, tokens = [], 0
        for piece in row.live:
            if isinstance(piece, Past):
                assert piece.width == 0, "a learned K/V between live tokens cannot take positions"
                mine.append((piece, tokens))
            else:
                tokens += len(piece)
        found.append(mine)
    blocks: list[Block] = []
    for place in range(max((len(mine) for mine in found), default=0)):
        pasts = [mine[place][0] if place < len(mine) else None for mine in found]
        since = [mine[place][1] if place < len(mine) else 0 for mine in found]
        block = block_of(pasts, since)
        assert block is not None
        if all(past is None or not past.rotated for past in pasts):
            blocks.append(block)
            continue
        here = [
            0 if past is not None and not past.rotated else row.start + step
            for row, past, step in zip(rows, pasts, since, strict=True)
        ]
        blocks.append(replace(block, kv=base.rotate(block.kv, torch.tensor(here, device=base.device))))
    return blocks
