"""LoRA (Hu et al. 2021, arXiv:2106.09685) through PEFT, and activated LoRA (Greenewald et al. 2025, arXiv:2504.12397).

Activated LoRA acts from the cue on only. So nothing learned stands before the text, and its K/V never changes. As in
infix tuning, a training step runs only the cue and the answer, on texts that were encoded once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from peft import PeftConfig, PeftModel
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from transformers import PreTrainedModel

from softprompt.adapters.options import Modules
from softprompt.adapters.targets import ALL_LINEAR, all_linear_fits
from softprompt.adapters.tuner import Tuner, check_given
from softprompt.adapters.weights import WeightsSpec
from softprompt.base import Base
from softprompt.config import parse
from softprompt.engine import Slot
from softprompt.errors import ConfigError
from softprompt.methods.base import TrainDefaults
from softprompt.tasks import BoundTask

_WHERE = {"target_modules", "exclude_modules", "layers_pattern", "init_lora_weights", "fan_in_fan_out"}
"""Options that say which modules have factors, or how they began, and nothing of what the factors do."""

# names of modules in the encoder of T5, BART and their like
_ENCODER = r"(.*\.)?encoder\..*"


class LoraSpec(WeightsSpec):
    """Settings of `lora`.

    Attributes:
        r: rank of the update.
        alpha: the update is scaled by alpha / r.
        dropout: dropout on the update's input, in training.
        target_modules: names of the modules to update, or `all-linear`. Null: all linear layers but the output layer, which
            training writes here as `all-linear`. With experts it is PEFT's choice for the family, as in artifacts of
            earlier versions.
        rslora: scale by alpha / √r (Kalajdzievski 2023).
        dora: learn magnitudes as well (Liu et al. 2024).
        activate: `cue` lets the weights act only from the template's cue on (on a sequence-to-sequence base: in the
            decoder). Then texts are encoded once, and steps are short.
        options: other supported keys of PEFT's LoraConfig.
    """

    r: PositiveInt = 8
    alpha: float = Field(default=16.0, gt=0, le=1e6)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: Modules | None = None
    rslora: bool = False
    dora: bool = False
    activate: Literal["always", "cue"] = "always"
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _know(self) -> LoraSpec:
        check_given("LORA", self.options)
        return self


class Lora(Tuner):
    """Low-rank updates of the base's weights."""

    title = "low-rank updates of weights, through PEFT (Hu et al. 2021); `activate: cue` trains them on encoded texts"
    Spec = LoraSpec
    may_be_zero = False  # one factor starts with random numbers
    spec: LoraSpec
    _cue: tuple[int, ...] = ()
    _decoder_only = False

    def __init__(self, spec: LoraSpec) -> None:
        super().__init__(spec)
        self._asked = spec.target_modules

    @property
    def defaults(self) -> TrainDefaults:  # type: ignore[override]
        """Steps on encoded texts are short, so they can be many. There a few named modules learn at twice the rate of all."""
        if self.spec.activate == "cue":
            rate = 1e-3 if str(self.spec.target_modules or ALL_LINEAR).lower() == ALL_LINEAR else 2e-3
            return TrainDefaults(lr=rate, epochs=4, min_steps=96, batch_size=32, least_batch=32)
        return TrainDefaults(lr=5e-4, epochs=3, min_steps=96, batch_size=16)

    def segments(self, slots: Sequence[Slot], cue: int) -> tuple[Slot, ...]:
        """Active from the first slot on, or from the cue on (with a decoder: in all that it writes).

        Raises:
            ConfigError: activated at a cue that the template does not have.
        """
        if self.spec.activate == "always":
            return super().segments(slots, cue)
        if (writes := next((place for place, slot in enumerate(slots) if slot.decoder), None)) is not None:
            return (*slots[:writes], *super().segments(slots[writes:], cue))
        if not cue:
            raise ConfigError(
                "method.activate is 'cue', but the template has none; write template.cue, e.g. '\\nSentiment:'"
            )
        first = next(place for place, slot in enumerate(slots) if slot.name == "cue")
        return (*slots[:first], replace(slots[first], adapted=True), *slots[first + 1 :])

    def config(self, base: Base) -> PeftConfig:
        """PEFT's LoraConfig.

        Raises:
            ConfigError: activated on a base that reads both ways.
        """
        spec = self.spec
        self._decoder_only = spec.activate == "cue" and base.has_decoder
        if spec.activate == "cue" and base.bidirectional:
            raise ConfigError(
                f"method.activate is 'cue', but base {base.name!r} ({base.kind}) reads both ways, so a text is never kept; "
                "leave it out"
            )
        options: dict[str, Any] = {
            "r": spec.r,
            "lora_alpha": spec.alpha,
            "lora_dropout": spec.dropout,
            "use_rslora": spec.rslora,
            "use_dora": spec.dora,
        }
        if self._decoder_only:
            options["exclude_modules"] = _ENCODER
        return self._made("LORA", {"target_modules": spec.target_modules, **options, **spec.options}, base)

    def attach(self, base: Base, bound: BoundTask, seed: int) -> None:
        """As PEFT starts it: the update is zero. Which modules are updated is written into the settings."""
        self.spec = self.spec.model_copy(update={"target_modules": self._target_modules(base)})
        super().attach(base, bound, seed)
        self.bound_to(bound)

    def _target_modules(self, base: Base) -> Modules | None:
        """Those asked for, else all linear layers; None for PEFT's choice, or where the options say it."""
        named = self._asked or self.spec.options.get("target_modules") or self.spec.options.get("target_parameters")
        return ALL_LINEAR if not named and all_linear_fits(base) else self._asked

    def _wrapped(self, branch: Base, seed: int) -> PeftModel:
        """As any tuner; what only the decoder is to see must lie in it.

        Raises:
            ConfigError: something else would change, too: texts are read by the frozen base.
        """
        model = super()._wrapped(branch, seed)
        if not self._decoder_only:
            return model
        shared = {id(weight) for weight in branch.model.get_input_embeddings().parameters()}
        own = {id(weight) for weight in branch.body.parameters()} - shared
        named = [
            name for name, weight in branch.model.named_parameters() if weight.requires_grad and id(weight) not in own
        ]
        if named:
            raise ConfigError(
                f"method.activate is 'cue', but these settings also change {named[0]!r}, which is not the decoder's alone; "
                "name modules of its layers, or leave out method.activate"
            )
        return model

    def bound_to(self, bound: BoundTask) -> None:
        """The cue, from which on an activated LoRA acts."""
        self.activated_by(bound.cue)

    def mean_of(self, members: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
        """Factors whose product is the mean of the members' products, exactly: theirs side by side, so the ranks add up.

        As PEFT's `add_weighted_adapter` does with `cat`. The rank and alpha of the settings grow with it.

        Raises:
            ConfigError: there is more in it than two factors a module, all of one rank.
        """
        spec, count = self.spec, len(members)
        found = {name: _side(name, value, spec.r) for name, value in members[0].items()}
        sides = {name: side for name, side in found.items() if side is not None}
        if spec.dora or set(spec.options) - _WHERE or len(sides) < len(found):
            raise ConfigError(
                "only a plain LoRA has an exact mean: without dora, and without options that give modules other ranks, "
                "scales, biases or whole weights; use softprompt ensemble"
            )
        grown = {"r": count * spec.r, "alpha": spec.alpha * (math.sqrt(count) if spec.rslora else count)}
        self.spec = parse(LoraSpec, {**spec.model_dump(exclude_none=True), **grown}, "method")
        joined = {}
        for name, side in sides.items():
            shares = weights if side == 1 else [1.0] * count
            parts = [one[name] * share for one, share in zip(members, shares, strict=True)]
            joined[name] = torch.cat(parts, dim=side)
        return joined

    def activated_by(self, cue: Sequence[int]) -> None:
        """The tokens from which on an activated LoRA acts, for PEFT's configuration."""
        self._cue = tuple(cue)

    def may_lack_gradient(self) -> list[nn.Parameter]:
        """What lies outside of the layers: of a masked model's own head, which a learned head takes the place of."""
        if not self.branch.bidirectional:
            return []
        inside = {id(weight) for weight in self.branch.body.parameters()}
        return [weight for weight in self.parameters() if id(weight) not in inside]

    def adapter_config(self, base: Base) -> dict[str, Any] | None:
        """As PEFT writes it; for an activated LoRA with the tokens that activate it (known since `attach`)."""
        values = super().adapter_config(base)
        if self._decoder_only:
            return values
        if self.spec.activate == "cue" and not self._cue:
            return None
        if self.spec.activate == "cue" and values and values.get("target_parameters"):
            return None  # PEFT activates layers, not the parameters of experts
        if values is not None and self.spec.activate == "cue":
            values["alora_invocation_tokens"] = list(self._cue)
        return values

    def merged(self, base: Base) -> PreTrainedModel:
        """Merged by PEFT.

        Raises:
            ConfigError: an activated LoRA acts on some tokens only.
        """
        if self.spec.activate == "cue" and not base.has_decoder:
            raise ConfigError("an activated LoRA acts from the cue on only, so it cannot be merged; serve its artifact")
        return super().merged(base)


def _side(name: str, value: Tensor, rank: int) -> int | None:
    """Along which dimension a factor has the rank; None of what is no factor of this rank."""
    for ends, side in (((".lora_A.weight", ".lora_embedding_A"), 0), ((".lora_B.weight", ".lora_embedding_B"), 1)):
        if name.endswith(ends) and value.dim() > 1 and value.shape[side] == rank:
            return side
    return None
