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
        layers: `20-` learns keys and values from layer 20 on. Below they stay those of the text that the prefix starts
            from, so texts are run through these layers once, behind that text, and kept.
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
    _below: Tensor | None = None

    @property
    def first_layer(self) -> int:  # type: ignore[override]
        """The first that has a prefix."""
        return int(self.spec.layers.partition("-")[0]) if self.spec.layers else 0

    def segments(self, slots: Sequence[Slot], cue: int) -> tuple[Slot, ...]:
        """The prefix first."""
        return (Slot("prompt", learned="kv", size=self.spec.length), *slots)

    @property
    def value(self) -> Tensor:
        """[L, 2, G, P, D]: what is learned, on what stays as it began in the layers below."""
        own = super().value
        return own if self._below is None else torch.cat([self._below, own])

    def make(self, value: Tensor) -> None:
        """Learn the part of [L, 2, G, P, D] that lies in the layers asked for."""
        super().make(self._keep_below(value))

    def _keep_below(self, value: Tensor) -> Tensor:
        """The part that is learned; the rest stays as it is."""
        first = self.first_layer
        self._below = value[:first].detach().float().clone() if first else None
        return value[first:]

    def attach(self, base: Base, bound: BoundTask, seed: int) -> None:
        """Start from the K/V of a text (random keys train far worse: PEFT's own benchmark, 18.6 against 41.6 %)."""
        spec = self.spec
        self.shape(base)  # refuses layers that are not there before anything is computed
        value = init_kv(base, bound, spec.init, spec.length, seed, spec.text, spec.artifact)
        if spec.reparameterization == "none":
            self.make(value)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                encoder = PrefixEncoder(self._keep_below(value), base.shape.hidden_size, spec.hidden)
                self.make_from(encoder.to(base.device))

    def shape(self, base: Base) -> tuple[int, ...]:
        """[L, 2, G, P, D].

        Raises:
            ConfigError: the base has no such layers, or `layers` ends before the last one.
        """
        s = base.shape
        if self.spec.layers:
            own = layers_of(self.spec.layers, base)
            if own.stop != s.layers:
                raise ConfigError(
                    f"method.layers is {self.spec.layers!r}: a prefix ends in the last layer; say '{own.start}-'"
                )
        return s.layers, 2, s.kv_heads, self.spec.length, s.head_size

    def export(self) -> dict[str, Tensor]:
        """In PEFT's layout [P, L·2·G·D]."""
        return {self.key: peft_format.kv_to_peft(self.value.detach().float().cpu())}

    def _take(self, value: Tensor, base: Base) -> None:
        s = base.shape
        width = s.kv_per_token
        if value.dim() != 2 or value.shape[1] != width:
            raise ArtifactError(
                f"{self.key} has shape {list(value.shape)}, this base needs [{self.spec.length}, {width}]"
            )
        super()._take(peft_format.kv_from_peft(value, s.layers, s.kv_heads, s.head_size), base)

    def adapter_config(self, base: Base) -> dict[str, Any]:
        """PEFT loads it as PREFIX_TUNING."""
        return peft_format.prefix_config(base.name, self.spec.length, base.shape)
