"""P-tuning: a soft prompt that a small encoder gives in training (Liu et al. 2021, arXiv:2103.10385)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveInt

from ..base import Base
from ..randomness import seeded
from ..tasks import BoundTask
from .base import TrainDefaults
from .encoder import PromptEncoder
from .soft import Soft, SoftSpec


class PTuningSpec(SoftSpec):
    """Settings of `p_tuning`, beside those of `soft`.

    Attributes:
        encoder: the network that makes the prompt: `lstm` or `mlp`.
        hidden: width of its hidden layers.
        layers: layers of the LSTM.
        residual: add the encoder's output to the prompt's initial text. `false` is the form of the paper and of PEFT,
            which starts at random.
    """

    encoder: Literal["mlp", "lstm"] = "mlp"
    hidden: PositiveInt = 256
    layers: PositiveInt = 2
    residual: bool = True


class PTuning(Soft):
    """As `soft`; the encoder has its own parameters in training, and only its finished prompt [P, H] is saved.

    One encoder gives all of the template's soft slots, as in the paper.
    """

    title = "a soft prompt that an MLP or LSTM gives in training (Liu et al. 2021); saved as a soft prompt"
    Spec = PTuningSpec
    defaults: ClassVar[TrainDefaults] = TrainDefaults(lr=1e-3, epochs=3, min_steps=144, batch_size=16, warmup=0.3)
    spec: PTuningSpec

    def attach(self, base: Base, bound: BoundTask, seed: int) -> None:
        """Start as `soft` does; the encoder's own weights depend on the seed."""
        start, spec = self._start(base, bound, seed), self.spec
        with seeded(seed):
            encoder = PromptEncoder(start.cpu(), spec.encoder, spec.hidden, spec.layers, spec.residual)
        self.make_from(encoder.to(base.device))
