"""Full fine-tuning, the yardstick: all weights, the biases only (BitFit, Zaken et al. 2022, arXiv:2106.10199), or some layers.

Where all weights are trained the artifact is a plain transformers model folder; otherwise it holds what was trained.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from softprompt.adapters.weights import WeightsMethod, WeightsSpec, plain, take
from softprompt.base import Base
from softprompt.errors import ConfigError
from softprompt.methods.base import TrainDefaults
from softprompt.tasks import BoundTask


class FullSpec(WeightsSpec):
    """Settings of `full`.

    Attributes:
        train: `all` weights, or `bitfit`: biases only.
    """

    train: Literal["all", "bitfit"] = "all"


class Full(WeightsMethod):
    """A branch with a copy of every weight that is trained; the others are the base's own."""

    title = "all weights, biases only, or the weights of some layers"
    Spec = FullSpec
    defaults: ClassVar[TrainDefaults] = TrainDefaults(lr=2e-5, epochs=3, min_steps=96, batch_size=16)
    factors = False
    spec: FullSpec
    _names: frozenset[str] = frozenset()

    @property
    def trains_whole_model(self) -> bool:  # type: ignore[override]
        """Whether every weight is trained, so that the artifact is a model by itself."""
        return self.spec.train == "all" and not self.spec.layers

    def names(self, base: Base) -> list[str]:
        """Parameters that are trained, as transformers names them.

        Raises:
            ConfigError: there are none, or the base is quantised.
        """
        if getattr(base, "quantization", None):
            raise ConfigError(
                f"full fine-tuning cannot train {base.quantization} weights: they are whole numbers without a gradient; "
                "use method: lora, or a base without base.quantization"
            )
        inside = None
        if self.spec.layers:
            inside = {id(weight) for index in self.layers(base) for weight in base.layer(index).parameters()}
        names = [
            name
            for name, weight in base.model.named_parameters()
            if (inside is None or id(weight) in inside) and (self.spec.train == "all" or name.endswith("bias"))
        ]
        if not names:
            raise ConfigError(
                f"method.train is {self.spec.train!r}, but base {base.name!r} has no such weights"
                + ("; this family has no biases; use method: lora" if self.spec.train == "bitfit" else "")
            )
        return names

    def attach(self, base: Base, bound: BoundTask, seed: int) -> None:
        """Copy what is trained. (Nothing here is drawn at random.)"""
        self._copy(base)
        for weight in self._own.values():
            weight.requires_grad_(True)

    def _copy(self, base: Base) -> None:
        self._names = frozenset(self.names(base))
        self._branch = base.branch(own=self._names.__contains__)

    @property
    def _own(self) -> dict[str, nn.Parameter]:
        """The copies by name, as they are now: sharing them out (FSDP) puts others in their place."""
        return {name: weight for name, weight in self.branch.model.named_parameters() if name in self._names}

    def parameters(self) -> list[nn.Parameter]:
        """The copies."""
        return [weight for weight in self._own.values() if weight.requires_grad] if self._branch else []

    def export(self) -> dict[str, Tensor]:
        """The trained weights under transformers' names."""
        return plain(self._own)

    def files(self) -> dict[str, bytes]:
        """Configuration and tokenizer, where all weights are trained."""
        if not self.trains_whole_model:
            return {}
        model, found = self.branch.model, {}
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            config = copy.deepcopy(model.config)
            config.architectures = [type(model).__name__]
            config.save_pretrained(folder)
            if getattr(model, "generation_config", None) is not None:
                model.generation_config.save_pretrained(folder)
            self.branch.tokenizer.save_pretrained(folder)
            found = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
        return found

    def restore(self, tensors: dict[str, Tensor], base: Base) -> None:
        """Take them back."""
        self._copy(base)
        take(tensors, self._own, self.spec.name)
        with torch.no_grad():
            for name, weight in self._own.items():
                weight.copy_(tensors[name])

    def merged(self, base: Base) -> PreTrainedModel:
        """The branch itself is a plain model; what it shares with the base is copied, so that it may be trained on."""
        return self.branch.model if self.trains_whole_model else copy.deepcopy(self.branch.model)
