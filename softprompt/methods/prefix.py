"""Prefix tuning: P learned keys and values per layer in front of everything (Li & Liang 2021, arXiv:2101.00190)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor

from ..artifact import peft_format
from ..base import Base
from ..base.own_cache import prefix_in_peft
from ..engine import Slot
from ..errors import ArtifactError, ConfigError
from ..randomness import seeded
from ..tasks import BoundTask
from .base import Stores, TrainDefaults
from .encoder import PrefixEncoder
from .init import init_kv
from .layers import Layers, layers_of
from .soft import Soft, SoftSpec

_LENGTH, _AVERAGED = 20, 5  # under a head that reads means 5 tokens are a point above 20 (benchmarks/LOG.md)


class PrefixSpec(SoftSpec):
    """Settings of `prefix`, beside those of `soft`.

    Attributes:
        length: P. Null: 20, or 5 where a head reads the mean of an encoder's states. With `layers` null is the length
            of the text it starts from, repeated to at least 40 tokens. With `init: artifact` it is the artifact's
            length.
        layers: `20-` learns keys and values from layer 20 on. The layers below keep those of the text that the prefix
            starts from. So rows run through these layers once, behind that text, and are kept.
        reparameterization: `mlp` trains a small network whose output is added to the initial prefix (Li & Liang 2021,
            §4.3). With `projection`, which is PEFT's, the output is the prefix itself; it starts at random or, with
            `init: zero`, at zero. Only the finished prefix is saved.
        hidden: width of that network's hidden layer.
    """

    length: PositiveInt | None = None  # type: ignore[assignment]
    layers: Layers | None = None
    reparameterization: Literal["none", "mlp", "projection"] = "none"
    hidden: PositiveInt = 512

    @property
    def first(self) -> int:
        """The lowest layer that learns."""
        return int(self.layers.partition("-")[0]) if self.layers else 0

    @model_validator(mode="after")
    def _refuse_groups(self) -> PrefixSpec:
        if self.groups is not None:
            raise ValueError("method.groups are soft slots of embeddings; a prefix stands in front")
        return self

    @model_validator(mode="after")
    def _projection_starts_by_itself(self) -> PrefixSpec:
        if self.reparameterization == "projection" and self.init not in ("normal", "zero"):
            raise ValueError(
                f"method.reparameterization 'projection' begins at random or at zero, not from init {self.init!r}; "
                "set init: normal or zero, or use reparameterization: mlp"
            )
        return self


class Prefix(Soft):
    """`[prefix][prefix_ids][text][cue][answer]`: no token is run for the prefix, its K/V is learned directly.

    The text starts at position P, as in PEFT, so that folders are interchangeable.
    """

    title = "P learned keys and values per layer in front of the text (Li & Liang 2021)"
    Spec = PrefixSpec
    stores: Stores = "kv"
    learns_slots = False
    spec: PrefixSpec
    _below: Tensor | None = None

    @property
    def defaults(self) -> TrainDefaults:  # type: ignore[override]
        """Fewer layers or tokens take a higher rate; a network's weights a far lower one (2e-3 ends at chance)."""
        if self.spec.reparameterization != "none":
            return TrainDefaults(lr=1e-4, epochs=3, min_steps=96, batch_size=16, warmup=0.3)
        if self.averaged:
            return TrainDefaults(lr=5e-2, head_lr=1e-2, epochs=3, min_steps=96, batch_size=16, warmup=0.3)
        return TrainDefaults(lr=5e-2 if self.first_layer else 2e-2, epochs=3, min_steps=96, batch_size=16, warmup=0.3)

    @property
    def length(self) -> int:
        """P: each takes a position.

        Raises:
            RuntimeError: it was not given, and neither `attach` nor `restore` was called.
        """
        if self.spec.length is None:
            raise RuntimeError("this prefix has no length yet; attach it to a base first")
        return self.spec.length

    @property
    def first_layer(self) -> int:  # type: ignore[override]
        """The first that learns."""
        return self.spec.first

    @property
    def _wanted(self) -> int | None:
        """P to start with; None: that of what the prefix starts from."""
        spec = self.spec
        if spec.length or spec.init == "artifact" or (spec.init == "text" and spec.first):
            return spec.length
        return _AVERAGED if self.averaged else _LENGTH

    def _settle(self, length: int) -> None:
        """Write it into the settings, where it was left open, so that the artifact names it."""
        if self.spec.length is None:
            self.spec = self.spec.model_copy(update={"length": length})

    def segments(self, slots: Sequence[Slot], cue: int) -> tuple[Slot, ...]:
        """The prefix first."""
        return (Slot("prompt", learned="kv"), *slots)

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
        spec, base = self.spec, base.reader
        self._check_layers(base)
        value = init_kv(base, bound, spec.init, self._wanted, seed, spec.text, spec.artifact)
        self._settle(value.shape[3])
        if spec.reparameterization == "none":
            self.make(value)
        else:
            with seeded(seed):
                encoder = self._encoder_from(self._keep_below(value), base)
                self.make_from(encoder.to(base.device))

    def _encoder_from(self, start: Tensor, base: Base) -> PrefixEncoder:
        """The network whose output is the prefix, or is added to its start [L, 2, G, P, D]."""
        if self.spec.reparameterization == "mlp":
            return PrefixEncoder(start, base.shape.hidden_size, self.spec.hidden)
        # PEFT's embeddings are as wide as the keys of a layer
        width = start.shape[2] * start.shape[4]
        return PrefixEncoder(start, width, self.spec.hidden, residual=False, at_zero=self.spec.init == "zero")

    def shape(self, base: Base) -> tuple[int, ...]:
        """[L, 2, G, P, D].

        Raises:
            ConfigError: the base has no such layers, or `layers` ends before the last one.
        """
        base = base.reader
        self._check_layers(base)
        s = base.shape
        return s.layers, 2, s.kv_heads, self.length, s.head_size

    def _check_layers(self, base: Base) -> None:
        if self.spec.layers:
            own = layers_of(self.spec.layers, base)
            if own.stop != base.shape.layers:
                raise ConfigError(
                    f"method.layers is {self.spec.layers!r}: a prefix ends in the last layer; say '{own.start}-'"
                )

    def export(self) -> dict[str, Tensor]:
        """In PEFT's layout [P, L·2·G·D]."""
        return {self.key: peft_format.kv_to_peft(self.value.detach().float().cpu())}

    def _take(self, value: Tensor, base: Base) -> None:
        s = base.reader.shape
        width = s.kv_per_token
        if value.dim() != 2 or value.shape[1] != width:
            raise ArtifactError(
                f"{self.key} has shape {list(value.shape)}, this base needs [{self.spec.length or 'P'}, {width}]"
            )
        self._settle(len(value))
        super()._take(peft_format.kv_from_peft(value, s.layers, s.kv_heads, s.head_size), base)

    def adapter_config(self, base: Base) -> dict[str, Any] | None:
        """PEFT loads it as PREFIX_TUNING on a causal base; elsewhere its own stands in other places.

        In rows longer than a sliding window PEFT hides it, as tokens that lie so far behind; here it stays in sight.
        """
        if prefix_in_peft(base) is None:
            return None
        return peft_format.prefix_config(base.identity.hub_id, self.length, base.shape)
