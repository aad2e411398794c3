"""Prefix tuning: P learned keys and values per layer in front of everything (Li & Liang 2021, arXiv:2101.00190)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from ..artifact import peft_format
from ..base import Base
from ..engine import Slot
from ..errors import ArtifactError, ConfigError
from ..tasks import BoundTask
from .base import Layers, Stores, TrainDefaults, layers_of
from .encoder import PrefixEncoder
from .init import init_kv
from .soft import Soft, SoftSpec


class PrefixSpec(SoftSpec):
    """Settings of `prefix`: those of `soft`, and

    Attributes:
        layers: `20-` learns keys and values from layer 20 on only; texts are run through the layers below once and kept.
        reparameterization: `mlp` trains a small network whose output is the prefix (Li & Liang 2021, §4.3); only its output
            is saved.
        hidden: width of that network.
    """

    layers: Layers | None = None
    reparameterization: Literal["none", "mlp"] = "none"
    hidden: PositiveInt = 512


class Prefix(Soft):
    """`[prefix][head][text][cue][answer]`: no token is run for the prefix, its K/V is learned directly.

    The text starts at position P, as in PEFT, so that folders are interchangeable.
    """

    title = "P learned keys and values per layer in front of the text (Li & Liang 2021)"
    Spec = PrefixSpec
    defaults: ClassVar[TrainDefaults] = TrainDefaults(lr=2e-2, epochs=3, batch_size=16)
    stores: Stores = "kv"
    spec: PrefixSpec

    @property
    def key(self) -> str:  # type: ignore[override]
        """PEFT's name and layout [P, L·2·G·D]; a name of ours [n, 2, G, P, D] where only the upper n layers have a prefix."""
        return "prefix_kv" if self.spec.layers else "prompt_embeddings"

    @property
    def first_layer(self) -> int:  # type: ignore[override]
        """The first that has a prefix."""
        return int(self.spec.layers.partition("-")[0]) if self.spec.layers else 0

    def segments(self, slots: Sequence[Slot], cue: int) -> tuple[Slot, ...]:
        """The prefix first."""
        return (Slot("prompt", learned="kv", size=self.spec.length), *slots)

    def attach(self, base: Base, bound: BoundTask, seed: int) -> None:
        """Start from the K/V of a text (random keys train far worse: PEFT's own benchmark, 18.6 against 41.6 %)."""
        spec = self.spec
        want = self.shape(base)
        value = init_kv(base, bound, spec.init, spec.length, seed, spec.text, spec.artifact, layers=want[0])
        if spec.reparameterization == "none":
            self.make(value)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.make_from(PrefixEncoder(value, base.shape.hidden_size, spec.hidden).to(base.device))

    def shape(self, base: Base) -> tuple[int, ...]:
        """[L, 2, G, P, D], or of the upper layers only.

        Raises:
            ConfigError: the base has no such layers, or `layers` ends before the last one.
        """
        s = base.shape
        layers = s.layers
        if self.spec.layers:
            own = layers_of(self.spec.layers, base)
            if own.stop != s.layers:
                raise ConfigError(
                    f"method.layers is {self.spec.layers!r}: a prefix ends in the last layer; say '{own.start}-'"
                )
            layers = len(own)
        return layers, 2, s.kv_heads, self.spec.length, s.head_size

    def layout(self) -> dict[str, Any]:
        """With the number of layers where not all have a prefix."""
        return {**super().layout(), **({"layers": self.value.shape[0]} if self.spec.layers else {})}

    def export(self) -> dict[str, Tensor]:
        """In PEFT's layout where PEFT can express it."""
        value = self.value.detach().float().cpu()
        return {self.key: value.contiguous() if self.spec.layers else peft_format.kv_to_peft(value)}

    def _take(self, value: Tensor, base: Base) -> None:
        s = base.shape
        if not self.spec.layers:
            width = s.kv_per_token
            if value.dim() != 2 or value.shape[1] != width:
                raise ArtifactError(
                    f"{self.key} has shape {list(value.shape)}, this base needs [{self.spec.length}, {width}]"
                )
            value = peft_format.kv_from_peft(value, s.layers, s.kv_heads, s.head_size)
        super()._take(value, base)

    def adapter_config(self, base: Base) -> dict[str, Any] | None:
        """PEFT loads it as PREFIX_TUNING if all layers have a prefix."""
        return None if self.spec.layers else peft_format.prefix_config(base.name, self.spec.length, base.shape)
