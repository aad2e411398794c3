"""Running rows: each has a past (trunk, cached text) and live pieces; all of a batch go through the base at once.

Training, evaluation and mixed-artifact serving are the same call with different rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..base import KV, Base, Block
from ..types import Ids
from .cache import RowCache
from .past import Past, block_of

KEYS_AT_ONCE = 16_384  # of contexts that are copied for answers of several tokens
Piece = Ids | Tensor | Past
"""Ids [n], learned embeddings [P, H] (or kept states [n, H]), or learned K/V that later live tokens see.

Such K/V takes no position; its keys are those that it would have if the next live token stood at position 0.
"""


@dataclass(frozen=True)
class Row:
    """One row of a batch.

    Attributes:
        trunk: what stands in front of it; rows that share it pass the same object.
        cached: ids whose K/V lies in the row cache and follows the trunk.
        live: what runs now, in order; at least one token.
        frozen: ids that follow the trunk and run through the frozen base, not through the method's own.
    """

    trunk: Past | None
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
        return (self.trunk.width if self.trunk else 0) + len(self.cached) + len(self.frozen)

    @property
    def size(self) -> int:
        """Keys that its last token sees: what its memory and attention time go with."""
        return (self.trunk.size if self.trunk else 0) + len(self.cached) + len(self.frozen) + self.live_tokens


@dataclass(frozen=True)
class Batch:
    """A batch after its forward.

    Attributes:
        base: what the live tokens ran through.
        states: last hidden states of the packed live tokens, [N, H].
        ends: [B] index into `states` just past each row's last live token.
        blocks: what the live tokens saw.
        lengths, starts: live tokens and first live position of each row.
        kv: the live tokens' K/V if recorded, per layer [2, B, G, Q, D].
    """

    base: Base
    states: Tensor
    ends: Tensor
    blocks: list[Block] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    starts: Tensor | None = None
    kv: list[Tensor] | None = None

    @property
    def last(self) -> Tensor:
        """Hidden state of each row's last live token, [B, H]."""
        return self.states[self.ends - 1]

    @property
    def pooled(self) -> Tensor:
        """What a head reads, [B, H]."""
        return self.last

    def score(self, candidates: Sequence[Sequence[Ids]]) -> list[Tensor]:
        """See the function."""
        return score(self, candidates)

    def rows(self, places: Sequence[int]) -> Batch:
        """The same for some of the rows; `states` holds only their last tokens."""
        index = torch.tensor(list(places), device=self.states.device)
        return Batch(
            self.base,
            self.last.index_select(0, index),
            torch.arange(1, len(places) + 1, device=self.states.device),
            [_select(block, index) for block in self.blocks] if self.kv else [],
            [self.lengths[place] for place in places],
            None if self.starts is None else self.starts.index_select(0, index),
            [layer.index_select(1, index) for layer in self.kv] if self.kv else None,
        )


def run(
    base: Base,
    rows: Sequence[Row],
    cache: RowCache | None = None,
    record: bool = False,
    live: Base | None = None,
    first: int = 0,
    stop: int | None = None,
) -> Batch:
    """One forward over a batch of rows. Gradients flow into learned pieces, trunks and the live base's own weights.

    Args:
        base: frozen; what is frozen in a row runs through it.
        live: what live pieces run through, if that is not `base`.
        first, stop: only these layers run; with `first` the live pieces are states [n, H] that enter it.
    """
    live = live or base
    before = [block_of([row.trunk for row in rows]), _cached_block(base, rows, cache), _frozen_block(base, rows)]
    lengths = [row.live_tokens for row in rows]
    starts = torch.tensor([row.start for row in rows], device=base.device)
    blocks = [block for block in [*before, *_learned_blocks(base, rows)] if block is not None]
    inputs = _states(rows) if first else _embed(live, rows)
    hidden = live.forward(inputs, lengths, starts, blocks, record, first, stop)
    ends = torch.tensor(lengths, device=base.device).cumsum(0)
    return Batch(live, hidden.states, ends, blocks, lengths, starts, hidden.kv)


def score(batch: Batch, candidates: Sequence[Sequence[Ids]]) -> list[Tensor]:
    """Log-likelihood of every candidate answer after each row's context.

    Args:
        batch: contexts; recorded if any candidate has more than one token.
        candidates: per row its candidates' ids.

    Returns:
        per row [C_row]: Σ log p(token | context, earlier answer tokens).
    """
    first = batch.base.logits(batch.last).log_softmax(-1)  # [B, V]
    scores = [
        first[row].index_select(0, torch.tensor([ids[0] for ids in options], device=first.device))
        for row, options in enumerate(candidates)
    ]
    longer = [(r, c, ids) for r, options in enumerate(candidates) for c, ids in enumerate(options) if len(ids) > 1]
    step = _at_once(batch)
    for begin in range(0, len(longer), step):
        part = longer[begin : begin + step]
        rest = _continue(batch, [row for row, _, _ in part], [ids for _, _, ids in part])
        for (row, place, _), value in zip(part, rest, strict=True):
            scores[row] = scores[row].index_add(0, torch.tensor([place], device=first.device), value[None])
    return scores


def answer_states(batch: Batch, answers: Sequence[Ids]) -> list[Tensor]:
    """Last hidden states that predict one answer's tokens behind each row's context, per row [tokens, H].

    Args:
        batch: contexts; recorded if any answer has more than one token.
    """
    found = [state[None] for state in batch.last]
    longer = [row for row, ids in enumerate(answers) if len(ids) > 1]
    step = _at_once(batch)
    for begin in range(0, len(longer), step):
        part = longer[begin : begin + step]
        rest = _follow(batch, part, [answers[row] for row in part])
        for row, states in zip(part, rest.split([len(answers[row]) - 1 for row in part]), strict=True):
            found[row] = torch.cat([found[row], states])
    return found


def _at_once(batch: Batch) -> int:
    """How many answers are run behind their contexts together: bounded, as each takes a copy of its row's K/V."""
    keys = sum(block.positions.shape[1] for block in batch.blocks) + max(batch.lengths, default=0)
    return max(1, KEYS_AT_ONCE // max(1, keys))


def _continue(batch: Batch, rows: list[int], answers: list[Ids]) -> Tensor:
    """Log-likelihood of each answer's second and later tokens after its row's context, [len(rows)]."""
    states = _follow(batch, rows, answers)
    targets = torch.tensor([token for ids in answers for token in ids[1:]], device=states.device)
    logp = batch.base.logits(states).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    return torch.stack([part.sum() for part in logp.split([len(ids) - 1 for ids in answers])])


def context_blocks(batch: Batch, index: Tensor) -> list[Block]:
    """All that stands before an answer, for rows picked (and repeated) by `index`; the batch must have been recorded."""
    assert batch.kv is not None and batch.starts is not None, "contexts of longer answers must be recorded"
    sizes = torch.tensor(batch.lengths, device=index.device)
    columns = torch.arange(batch.kv[0].shape[3], device=index.device)  # wider than these rows if others were longer
    places = batch.starts[:, None] + columns
    valid = columns[None] < sizes[:, None]
    context = [*(replace(block, visible_from=None) for block in batch.blocks), Block(batch.kv, places, valid)]
    return [_select(block, index) for block in context]


def _follow(batch: Batch, rows: list[int], answers: list[Ids]) -> Tensor:
    """Last hidden states of each answer's tokens but its last, run behind its row's context, end to end [N, H]."""
    assert batch.starts is not None, "contexts of longer answers must be recorded"
    index = torch.tensor(rows, device=batch.starts.device)
    blocks = context_blocks(batch, index)
    starts = (batch.starts + torch.tensor(batch.lengths, device=index.device)).index_select(0, index)
    flat = torch.tensor([token for ids in answers for token in ids[:-1]], device=index.device)
    lengths = [len(ids) - 1 for ids in answers]
    return batch.base.forward(batch.base.embed(flat), lengths, starts, blocks).states


def _select(block: Block, index: Tensor) -> Block:
    """The block for rows picked (and repeated) by `index`."""

    def of(value: Tensor) -> Tensor:
        return value if value.shape[0] == 1 else value.index_select(0, index)

    kv: list[KV] = [(of(keys), of(values)) for keys, values in block.kv]
    return Block(kv, of(block.positions), None if block.valid is None else of(block.valid))


def _embed(base: Base, rows: Sequence[Row]) -> Tensor:
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


def _states(rows: Sequence[Row]) -> Tensor:
    """States of all live tokens, packed, [N, H]."""
    return torch.cat([piece for row in rows for piece in row.live if isinstance(piece, Tensor)])


def _frozen_block(base: Base, rows: Sequence[Row]) -> Block | None:
    """K/V of what runs through the frozen base, in rows whose other tokens run through the method's own."""
    which = [place for place, row in enumerate(rows) if row.frozen]
    if not which:
        return None
    batch = run(base, [Row(rows[place].trunk, (), (rows[place].frozen,)) for place in which], record=True)
    assert batch.kv is not None and batch.starts is not None
    places = torch.tensor(which, device=base.device)
    columns = torch.arange(batch.kv[0].shape[3], device=base.device)
    kv = [layer.new_zeros(2, len(rows), *layer.shape[2:]).index_copy(1, places, layer) for layer in batch.kv]
    lengths = torch.zeros(len(rows), dtype=torch.long, device=base.device)
    lengths[places] = torch.tensor(batch.lengths, device=base.device)
    starts = torch.zeros_like(lengths)
    starts[places] = batch.starts
    return Block(kv, starts[:, None] + columns, columns[None] < lengths[:, None])


def _cached_block(base: Base, rows: Sequence[Row], cache: RowCache | None) -> Block | None:
    keys = [row.cached for row in rows]
    if cache is None or not any(keys):
        return None
    kv, lengths = cache.gather(keys, base.dtype, base.device)
    index = torch.arange(kv.shape[4], device=base.device)
    trunk = torch.tensor([row.trunk.width if row.trunk else 0 for row in rows], device=base.device)
    full = bool((lengths == kv.shape[4]).all())
    return Block(kv, trunk[:, None] + index, None if full else index[None] < lengths[:, None])


def _learned_blocks(base: Base, rows: Sequence[Row]) -> list[Block]:
    """Learned K/V among the live pieces: one block for the first of each row, one for the second, …

    Their keys are turned to where the row has come by then, so that all rows see them at the same distance.
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
        here = torch.tensor([row.start + step for row, step in zip(rows, since, strict=True)], device=base.device)
        blocks.append(replace(block, kv=base.turn(block.kv, here)))
    return blocks
