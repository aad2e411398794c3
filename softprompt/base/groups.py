"""Rows of about one length attend together: on the CPU they are padded to the longest of their group, not of the batch.

Linear layers never see padding; attention does, and its cost goes with the square of the padded length. So the rows of a
batch are put in the order of their lengths, once for all layers, and each quarter of them gets a grid of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .attention import Block, LivePrefix

GROUPS = 4
AT_LEAST = 4  # rows of a group
WORTH = 0.8  # of the cells of queries and keys in one grid; above this the groups' own cost is not repaid


@dataclass(frozen=True)
class Ordered:
    """Rows in the order in which they run.

    Attributes:
        inputs: [N, H] of their live tokens, end to end.
        lengths, starts: live tokens and first position of each row.
        cuts: which rows attend together; empty: all of them.
        back: [N] where each of the tokens that were given runs now; None: where it was.
        prefix_tokens: of a live prefix before these rows, whose states are no result.
    """

    inputs: Tensor
    lengths: list[int]
    starts: Tensor
    cuts: Sequence[slice] = ()
    back: Tensor | None = None
    prefix_tokens: int = 0

    def restore(self, states: Tensor) -> Tensor:
        """Tokens [N, H] as they were given."""
        states = states[self.prefix_tokens :] if self.prefix_tokens else states
        return states if self.back is None else states.index_select(0, self.back)


def order(
    inputs: Tensor, lengths: list[int], starts: Tensor, blocks: Sequence[Block], live_prefix: LivePrefix | None = None
) -> Ordered:
    """Shortest rows first, cut into groups; as they are on a GPU, and where one grid is as well.

    Args:
        inputs, lengths, starts: as in `Ordered`, in any order of rows.
        blocks: what the rows see before them. Rows with blocks of their own stay as they are: these would have to be copied.
        live_prefix: its tokens come first in `inputs`, and stay there.
    """
    if live_prefix is not None:
        before, own = inputs.split([live_prefix.tokens, len(inputs) - live_prefix.tokens])
        keys = live_prefix.tokens + sum(block.positions.shape[1] for block in live_prefix.blocks)
        rows = _order(own, lengths, starts, blocks, keys)
        return Ordered(
            inputs if rows.back is None else torch.cat([before, rows.inputs]),
            [live_prefix.tokens, *rows.lengths],
            torch.cat([starts.new_tensor([live_prefix.start]), rows.starts]),
            [slice(0, 1), *(slice(cut.start + 1, cut.stop + 1) for cut in rows.cuts or [slice(0, len(lengths))])],
            rows.back,
            live_prefix.tokens,
        )
    return _order(inputs, lengths, starts, blocks, 0)


def _order(inputs: Tensor, lengths: list[int], starts: Tensor, blocks: Sequence[Block], before: int) -> Ordered:
    """Of the rows alone, behind so many keys of a live prefix."""
    given = Ordered(inputs, lengths, starts)
    count = min(GROUPS, len(lengths) // AT_LEAST)
    if inputs.device.type != "cpu" or count < 2 or not all(block.shared for block in blocks):
        return given
    ends = [len(lengths) * place // count for place in range(count + 1)]
    cuts = [slice(begin, end) for begin, end in pairwise(ends)]
    rows = sorted(range(len(lengths)), key=lengths.__getitem__)
    ordered = [lengths[row] for row in rows]
    before += sum(block.positions.shape[1] for block in blocks)
    if sum(_cells(ordered[cut], before) for cut in cuts) >= WORTH * _cells(ordered, before):
        return given
    begins = torch.tensor([0, *lengths[:-1]]).cumsum(0).tolist()
    there = torch.tensor([begins[row] + place for row in rows for place in range(lengths[row])])
    return Ordered(inputs.index_select(0, there), ordered, starts[torch.tensor(rows)], cuts, there.argsort())


def _cells(lengths: list[int], before: int) -> int:
    """Pairs of a query and a key in one grid, behind so many keys."""
    return len(lengths) * max(lengths) * (before + max(lengths))
