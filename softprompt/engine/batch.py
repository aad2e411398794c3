"""Contexts that have run: what answers behind them are worth, and what is written behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..base import KV, Base, Block
from ..types import Ids

KEYS_AT_ONCE = 16_384  # of contexts that are copied for answers of several tokens


@dataclass(frozen=True)
class BatchOutput:
    """A batch after its forward.

    Attributes:
        reruns: no keys are kept of it; what is written behind it runs again as a whole with each new token.
        base: what the live tokens ran through.
        states: last hidden states of the packed live tokens, [N, H].
        ends: [B] index into `states` just past each row's last live token.
        blocks: what the live tokens saw.
        lengths, starts: live tokens and first live position of each row.
        kv: the live tokens' K/V if recorded, per layer [2, B, G, Q, D].
    """

    reruns: ClassVar[bool] = False
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
    def keys(self) -> int:
        """Keys that a token behind the longest context sees."""
        return sum(block.positions.shape[1] for block in self.blocks) + max(self.lengths, default=0)

    @property
    def pooled(self) -> Tensor:
        """What a head reads, [B, H]."""
        return self.last

    def score(self, candidates: Sequence[Sequence[Ids]]) -> list[Tensor]:
        """See the function."""
        return score(self, candidates)

    def follow(self, rows: Sequence[int], answers: Sequence[Ids]) -> Tensor:
        """Last hidden states of each answer's tokens but its last, run behind the context of its row, end to end [N, H].

        The batch must have been recorded.
        """
        assert self.starts is not None, "contexts of longer answers must be recorded"
        index = torch.tensor(list(rows), device=self.starts.device)
        blocks = context_blocks(self, index)
        starts = (self.starts + torch.tensor(self.lengths, device=index.device)).index_select(0, index)
        flat = torch.tensor([token for ids in answers for token in ids[:-1]], device=index.device)
        lengths = [len(ids) - 1 for ids in answers]
        return self.base.forward(self.base.embed(flat), lengths, starts, blocks).states

    def rows(self, places: Sequence[int]) -> BatchOutput:
        """The same for some of the rows; `states` holds only their last tokens."""
        index = torch.tensor(list(places), device=self.states.device)
        return BatchOutput(
            self.base,
            self.last.index_select(0, index),
            torch.arange(1, len(places) + 1, device=self.states.device),
            [select_rows(block, index) for block in self.blocks] if self.kv else [],
            [self.lengths[place] for place in places],
            None if self.starts is None else self.starts.index_select(0, index),
            [layer.index_select(1, index) for layer in self.kv] if self.kv else None,
        )


def score(batch: BatchOutput, candidates: Sequence[Sequence[Ids]]) -> list[Tensor]:
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


def predicted(batch: BatchOutput, answers: Sequence[Ids], among: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """Logits [A, V] and tokens [A] of answers that have run, all but the last token of each, at the rows' ends.

    Args:
        among: tokens whose logits are asked for alone, [A, len(among)].
    """
    # logits at position i predict token i + 1: from the context's last token to the answer's last but one
    places = [
        end - len(ids) + step for end, ids in zip(batch.ends.tolist(), answers, strict=True) for step in range(len(ids))
    ]
    states = batch.states[places]
    logits = batch.base.logits(states, None if among is None else torch.tensor(among, device=states.device))
    return logits, torch.tensor([token for ids in answers for token in ids], device=logits.device)


def answer_states(batch: BatchOutput, answers: Sequence[Ids], rows: Sequence[int] | None = None) -> list[Tensor]:
    """Last hidden states that predict answers' tokens behind rows' contexts, per answer [tokens, H].

    Args:
        batch: contexts; recorded if any answer has more than one token.
        rows: whose answers these are, several of a row or none; None: one of each row, in order.
    """
    rows = range(len(batch.last)) if rows is None else rows
    first = batch.last
    found = [first[row][None] for row in rows]
    longer = [place for place, ids in enumerate(answers) if len(ids) > 1]
    step = _at_once(batch)
    for begin in range(0, len(longer), step):
        part = longer[begin : begin + step]
        rest = batch.follow([rows[place] for place in part], [answers[place] for place in part])
        for place, states in zip(part, rest.split([len(answers[place]) - 1 for place in part]), strict=True):
            found[place] = torch.cat([found[place], states])
    return found


def states_behind(batch: BatchOutput, ids: Ids) -> Tensor:
    """Last hidden state behind each row's context and these ids, [B, H]; the batch must have been recorded."""
    found, step = [], _at_once(batch)
    for begin in range(0, len(batch.last), step):
        rows = range(begin, min(begin + step, len(batch.last)))
        # `follow` leaves out an answer's last token, so one stands behind the ids that nobody reads
        states = batch.follow(rows, [(*ids, 0)] * len(rows))
        found.append(states.view(len(rows), len(ids), -1)[:, -1])
    return torch.cat(found)


def _at_once(batch: BatchOutput) -> int:
    """How many answers are run behind their contexts together: bounded, as each takes a copy of its row's K/V."""
    return max(1, KEYS_AT_ONCE // max(1, batch.keys))


def _continue(batch: BatchOutput, rows: list[int], answers: list[Ids]) -> Tensor:
    """Log-likelihood of each answer's second and later tokens after its row's context, [len(rows)]."""
    states = batch.follow(rows, answers)
    targets = torch.tensor([token for ids in answers for token in ids[1:]], device=states.device)
    logp = batch.base.logits(states).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    return torch.stack([part.sum() for part in logp.split([len(ids) - 1 for ids in answers])])


def context_blocks(batch: BatchOutput, index: Tensor) -> list[Block]:
    """All that stands before an answer, for rows picked (and repeated) by `index`; the batch must have been recorded."""
    assert batch.kv is not None and batch.starts is not None, "contexts of longer answers must be recorded"
    sizes = torch.tensor(batch.lengths, device=index.device)
    columns = torch.arange(batch.kv[0].shape[3], device=index.device)  # wider than these rows if others were longer
    places = batch.starts[:, None] + columns
    valid = columns[None] < sizes[:, None]
    context = [*(replace(block, visible_from=None) for block in batch.blocks), Block(batch.kv, places, valid)]
    return [select_rows(block, index) for block in context]


def select_rows(block: Block, index: Tensor) -> Block:
    """The block for rows picked (and repeated) by `index`."""

    def of(value: Tensor) -> Tensor:
        return value if value.shape[0] == 1 else value.index_select(0, index)

    kv: list[KV] = [(of(keys), of(values)) for keys, values in block.kv]
    return Block(kv, of(block.positions), None if block.valid is None else of(block.valid))
