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
from .rows import EngineRow, run


class FrozenLayers:
    """States of `prefix_ids` (once per task) and of every row (once per row), as they enter layer `plan.first_layer`.

    Args:
        shared: ids of the slots that all rows share.
        below: by slot, K/V [first_layer, 2, G, P, D] that stands before all rows in these layers and is not learned there.
        cache: for states, layout (0, H).
    """

    def __init__(
        self, base: Base, plan: Plan, shared: Mapping[str, Ids], below: Mapping[str, Tensor], cache: RowCache
    ) -> None:
        self.base, self.layer, self.cache, self._below = base, plan.first_layer, cache, below
        self._slots, self._shared = (*plan.shared_frozen, *plan.shared_live), shared
        self._prefix: Past | None = None
        self._states: Tensor | None = None

    @torch.no_grad()
    def prefix(self) -> tuple[Past | None, Tensor | None]:
        """What stands before all rows in the lower layers, and the states [h, H] of its tokens (None without any)."""
        if self._prefix is None and self._slots:
            before = [
                learned_past(self._below[slot.name].to(self.base.device, self.base.dtype), slot.takes_positions)
                for slot in self._slots
                if slot.learned
            ]
            ids = tuple(
                token
                for slot in self._slots
                if not slot.learned
                for token in self._shared[slot.name][slot.start : slot.stop]
            )
            self._prefix = join(before)
            if ids:
                batch = run(self.base, [EngineRow(self._prefix, (), (ids,))], record=True, stop=self.layer)
                assert batch.kv is not None
                start = self._prefix.width if self._prefix else 0
                places = torch.arange(len(ids), device=self.base.device) + start
                self._prefix = join([*before, Past(batch.kv, places, len(ids))])
                self._states = batch.states
        return self._prefix, self._states

    @torch.no_grad()
    def encode(self, rows: Sequence[Ids], progress: Progress) -> None:
        """Compute and keep the states of rows that are not there yet."""
        prefix, _ = self.prefix()

        def compute(part: Sequence[Ids]) -> Sequence[Tensor]:
            batch = run(self.base, [EngineRow(prefix, (), (ids,)) for ids in part], stop=self.layer)
            return batch.states.split(batch.lengths)

        encode(self.cache, rows, prefix.size if prefix else 0, compute, progress)

    def states(self, ids: Ids) -> Tensor:
        """Kept states [n, H] of one row, on the base's device."""
        return self.cache.get(ids).to(self.base.device, self.base.dtype)
