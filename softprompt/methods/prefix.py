"""Prefix tuning: P learned keys and values per layer in front of everything (Li & Liang 2021, arXiv:2101.00190)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from ..artifact import peft_format
from ..base import Base
from ..engine import Slot
from ..errors import ArtifactError
from ..tasks import BoundTask
from .base import TrainDefaults
from .init import init_kv
from .soft import Soft, SoftSpec


class PrefixSpec(SoftSpec):
    """Settings of `prefix`: those of `soft`."""


class Prefix(Soft):
    """`[prefix][head][text][cue][answer]`: no token is run for the prefix, its K/V is learned directly.

    The text starts at position P, as in PEFT, so that folders are interchangeable.
    """

    title = "P learned keys and values per layer in front of the text (Li & Liang 2021)"
    Spec = PrefixSpec
    defaults: ClassVar[TrainDefaults] = TrainDefaults(lr=2e-2, epochs=3, batch_size=16)
    stores = "kv"
    place = "front"
    key = "prompt_embeddings"  # PEFT's name and layout [P, L·2·G·D]
    spec: PrefixSpec

    def segments(self, slots: Sequence[Slot], cue: int) -> tuple[Slot, ...]:
        """The prefix first."""
        return (Slot("prompt", learned="kv"), *slots)

    def attach(self, base: Base, bound: BoundTask, seed: int) -> None:
        """Start from the K/V of a text (random keys train far worse: PEFT's own benchmark, 18.6 against 41.6 %)."""
        spec = self.spec
        self.make(init_kv(base, bound, spec.init, spec.length, seed, spec.text, spec.artifact))

    def shape(self, base: Base) -> tuple[int, ...]:
        """[L, 2, G, P, D]."""
        s = base.shape
        return s.layers, 2, s.kv_heads, self.spec.length, s.head_size

    def export(self) -> dict[str, Tensor]:
        """In PEFT's layout."""
        return {self.key: peft_format.kv_to_peft(self.value.detach().float().cpu())}

    def _take(self, value: Tensor, base: Base) -> None:
        s = base.shape
        width = s.kv_per_token
        if value.dim() != 2 or value.shape[1] != width:
            raise ArtifactError(
                f"{self.key} has shape {list(value.shape)}, this base needs [{self.spec.length}, {width}]"
            )
        super()._take(peft_format.kv_from_peft(value, s.layers, s.kv_heads, s.head_size), base)

    def adapter_config(self, base: Base) -> dict[str, Any] | None:
        """PEFT loads it as PREFIX_TUNING."""
        return peft_format.prefix_config(base.name, self.spec.length, base.shape)
