"""What stands below the first learned layer: the states that enter it, computed once and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..base import Base
from ..types import Ids, Progress
from .cache import RowCache
from .encode import encode
from .past import Past, join, learned_past
from .plan import Plan
from .rows import Row, run


class Lower:
    """States of the shared head (once per task) and of every row (once per row), as they enter layer `plan.first_layer`.

    Args:
        shared: ids of the slots that all rows share.
        cache: for states, layout (0, H).
    """

    def __init__(self, base: Base, plan: Plan, shared: Mapping[str, Ids], cache: RowCache) -> None:
        self.base, self.layer, self.cache = base, plan.first_layer, cache
        slots = (*plan.trunk_frozen, *plan.trunk_live)
        # learned K/V stands in upper layers only; below them it takes its positions and is not seen
        self._before = sum(slot.size for slot in slots if slot.learned and slot.takes_positions)
        self._head = tuple(token for slot in slots if not slot.learned for token in shared[slot.name])
        self._trunk: Past | None = None
        self._states: Tensor | None = None

    @torch.no_grad()
    def head(self) -> tuple[Past | None, Tensor | None]:
        """What stands before all rows in the lower layers, and the states [h, H] of its tokens (None without any)."""
        if self._trunk is None and (self._before or self._head):
            s = self.base.shape
            pasts = []
            if self._before:
                zeros = torch.zeros(
                    self.layer, 2, s.kv_heads, self._before, s.head_size, dtype=self.base.dtype, device=self.base.device
                )
                unseen = learned_past(zeros, self.layer, takes_positions=True)
                pasts.append(
                    Past(unseen.kv, unseen.positions, unseen.width, torch.full_like(unseen.positions, s.layers))
                )
            if self._head:
                row = Row(pasts[0] if pasts else None, (), (self._head,))
                batch = run(self.base, [row], record=True, stop=self.layer)
                assert batch.kv is not None
                places = torch.arange(len(self._head), device=self.base.device) + self._before
                pasts.append(Past(batch.kv, places, len(self._head)))
                self._states = batch.states
            self._trunk = join(pasts)
        return self._trunk, self._states

    @torch.no_grad()
    def encode(self, rows: Sequence[Ids], progress: Progress) -> None:
        """Compute and keep the states of rows that are not there yet."""
        trunk, _ = self.head()

        def compute(part: Sequence[Ids]) -> Sequence[Tensor]:
            batch = run(self.base, [Row(trunk, (), (ids,)) for ids in part], stop=self.layer)
            return batch.states.split(batch.lengths)

        encode(self.cache, rows, trunk.size if trunk else 0, compute, progress)

    def states(self, ids: Ids) -> Tensor:
        """Kept states [n, H] of one row, on the base's device."""
        return self.cache.get(ids).to(self.base.device, self.base.dtype)
