"""Who sees what: rows that share their past, and the forward that runs them.

A forward gets *packed* live tokens: the rows laid end to end as one sequence, so that linear layers never see padding.
For each row it also gets *blocks* of keys and values computed before: a shared prefix, the row's own cached text,
learned K/V. Only inside attention (`interface.py`) are the rows padded. Bidirectional models and decoders with an
encoder keep their rows as a padded grid throughout (`grid.py`).

Shapes: B rows, N live tokens of all rows together, Q the longest row's live tokens, S keys, L layers, A query heads,
G key/value heads, D head size.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ALWAYS = -1  # position of a learned key: it stands at no place in the text, so no window hides it

KV = Tensor | tuple[Tensor, Tensor]
"""Keys and values of a layer: a pair, or one tensor [2, …]."""


@dataclass(frozen=True)
class Block:
    """Keys and values that live tokens attend to.

    Attributes:
        kv: per layer keys and values, [b, G, S, D] each (keys are already rotated), b = B, or 1 when all rows share them. Of
            a `LivePrefix` a list that each layer puts its own into just before the rows look.
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
        """Whether all rows see the same of it; keys may still be rotated for each row."""
        parts = [*self.kv[-1], self.positions, self.valid, self.visible_from]
        return all(part is None or part.shape[0] == 1 for part in parts)


@dataclass(frozen=True)
class LivePrefix:
    """A shared prefix that runs together with its rows, as one more of them: its tokens come first, and the others see it.

    So it needs no pass of its own, whose matrix products would be too small to run fast.

    Attributes:
        tokens: how many it has.
        start: position of its first.
        blocks: what lies before it, and so before the other rows as well.
    """

    tokens: int
    start: int
    blocks: Sequence[Block] = ()


class Call:
    """One forward of the base: who sees what. The thread that runs it finds it by `current`.

    Attributes:
        lengths: live tokens of each row, all ≥ 1.
        starts: [B] position of each row's first live token.
        blocks: what lies before the live tokens, in order.
        record: keep the live tokens' keys and values.
        first, stop: layers that run; the others pass their input on.
        states: [1, N, H] what enters layer `first`, if it is not the embeddings.
        gradient_checkpointing: compute each layer again in the backward instead of keeping what it needs.
        prepacked: whether frozen weights are used in the processor's own order.
        recorded: after the forward, per layer that ran [2, B, G, Q, D] (right-padded).
        kept: after the forward, what would enter layer `stop`, [1, N, H].
        cuts: rows that attend together, one cut after the other, where all in one grid cost more (see `groups.py`).
        live_prefix: what the first row is, if the others stand behind it; `blocks` are what they see besides. It is a cut
            of its own.
        kv_size: (G, D) in which keys and values are recorded, where not all are of one size (see `scores.py`).
    """

    own_mask = False

    def __init__(
        self,
        lengths: list[int],
        starts: Tensor,
        blocks: Sequence[Block] = (),
        record: bool = False,
        first: int = 0,
        stop: int | None = None,
        states: Tensor | None = None,
        gradient_checkpointing: bool = False,
        prepacked: bool = False,
        cuts: Sequence[slice] = (),
        live_prefix: LivePrefix | None = None,
        kv_size: tuple[int, int] | None = None,
    ) -> None:
        self.lengths, self.starts, self.blocks, self.record = lengths, starts, blocks, record
        self.first, self.stop, self.states = first, stop, states
        self.gradient_checkpointing, self.prepacked = gradient_checkpointing, prepacked
        self.kv_size = kv_size
        self.recorded: list[Tensor] = []
        self.even = True  # whether keys and values that were recorded are of one size
        self.kept: Tensor | None = None
        self.handed: list[KV] | None = None  # this row's keys and values, where others stand behind it
        device = self.starts.device
        self.parts = [Call(lengths[cut], starts[cut], blocks) for cut in cuts]
        if live_prefix is not None:
            self.parts[0] = Call(lengths[:1], starts[:1], live_prefix.blocks)
            handed = self.parts[0].handed = []
            positions = torch.arange(live_prefix.start, live_prefix.start + live_prefix.tokens, device=device)
            before = [*live_prefix.blocks, Block(handed, positions[None]), *blocks]
            self.parts[1:] = [Call(lengths[cut], starts[cut], before) for cut in cuts[1:]]
        self.tokens = [sum(part.lengths) for part in self.parts]
        self.rows, self.width = len(self.lengths), max(self.lengths)
        self.ragged = min(self.lengths) != self.width
        sizes = torch.tensor(self.lengths, device=device)
        columns = torch.arange(self.width, device=device)
        self.inside = columns[None, :] < sizes[:, None]  # [B, Q]
        self.cells = self.inside.flatten().nonzero()[:, 0]  # [N] where each packed token lies in the padded grid
        self.encoder_mask: Tensor | None = None  # which of an encoder's states a row attends to (see `grid.py`)
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
        # some models look at it as one matrix without a copy (AFMoE)
        return (grid.index_select(0, self.cells) if self.ragged else grid).contiguous()[None]

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

    def window(self, module: torch.nn.Module, given: int | None) -> int | None:
        """How many tokens a layer's sliding window holds, the token itself among them; None: it has none.

        Args:
            given: as the layer calls attention with it.
        """
        return given

    def near(self, distance: Tensor, window: int) -> Tensor:
        """Whether a key that lies so far behind is inside of a sliding window."""
        return distance < window

    def with_bias(self, mask: Tensor | None, bias: Tensor | None, earlier: int) -> Tensor | None:
        """The mask together with what a model adds to its scores by distance; packed models add nothing."""
        return mask


_now = threading.local()


@contextlib.contextmanager
def running(call: Call | None) -> Iterator[None]:
    """What this thread's attention and gates go by meanwhile. Threads, and forwards within forwards, never mix."""
    before = current()
    _now.call = call
    try:
        yield
    finally:
        _now.call = before


def current() -> Call | None:
    """The forward that this thread is in; None: somebody runs the model as it is."""
    return getattr(_now, "call", None)
