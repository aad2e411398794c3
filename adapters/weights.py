"""Methods that change weights: they run through a branch of the base (its frozen weights shared) that holds their own."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from softprompt.artifact.checks import quote
from softprompt.base import Base
from softprompt.engine import Learned, Slot
from softprompt.errors import ArtifactError, ConfigError
from softprompt.methods.base import Method, MethodSpec, Place, Stores
from softprompt.methods.layers import Layers, layers_of


class WeightsSpec(MethodSpec):
    """What the settings of all methods in the weights share.

    Attributes:
        layers: `20-` changes only the layers from 20 on (`20-25` those six). Texts run through the layers below once
            and are kept.
        instruction: keep the task's instruction in front of the text. Null: yes, unless a head reads the mean of an
            encoder's states, which the instruction would dilute.
    """

    layers: Layers | None = None
    instruction: bool | None = None


class WeightsMethod(Method):
    """Weights of its own act on every token, so nothing is frozen; below its first layer everything is."""

    Spec = WeightsSpec
    stores: Stores = "weights"
    may_be_zero = True
    factors = True  # but for whole weights
    place: Place = "other"
    spec: WeightsSpec
    _branch: Base | None = None

    @property
    def first_layer(self) -> int:  # type: ignore[override]
        """The first that it changes."""
        return int(self.spec.layers.partition("-")[0]) if self.spec.layers else 0

    def segments(self, slots: Sequence[Slot], cue: int) -> tuple[Slot, ...]:
        """The slots as they are, all of them seen by its weights."""
        return (replace(slots[0], adapted=True), *slots[1:])

    @property
    def branch(self) -> Base:
        """The base with its weights in it.

        Raises:
            RuntimeError: `attach` or `restore` was not called.
        """
        if self._branch is None:
            raise RuntimeError(f"{type(self).__name__} is not attached to a base yet")
        return self._branch

    def parameters(self) -> list[nn.Parameter]:
        """Those of the branch that are trained."""
        return [] if self._branch is None else [p for p in self._branch.model.parameters() if p.requires_grad]

    def learned(self) -> Learned:
        """Live tokens run through the branch."""
        return Learned(base=self.branch)

    def layers(self, base: Base) -> range:
        """The layers that it may change."""
        return layers_of(self.spec.layers, base) if self.spec.layers else range(base.shape.layers)


def check_layers(model: nn.Module, base: Base, first: int) -> None:
    """Refuse what would be trained below the first layer that runs in a step: kept states enter there.

    Args:
        model: the base's with what is trained in it, by the base's own names.
        first: the lowest layer of `method.layers`, else 0.

    Raises:
        ConfigError: such a weight; names it.
    """
    below = {id(base.layer(index)): f"layer {index}" for index in range(first)}
    if below:
        below[id(base.model.get_input_embeddings())] = "the embeddings"
    paths = {f"{name}.": below[id(module)] for name, module in base.model.named_modules() if id(module) in below}
    for name, weight in model.named_parameters():
        where = next((what for path, what in paths.items() if name.startswith(path)), None)
        if where and weight.requires_grad:
            raise ConfigError(
                f"these settings also train {name!r} in {where}, but method.layers begins at {first} and nothing below is "
                "learned; remove it from modules_to_save, bias or the like, or leave out method.layers"
            )


def written_names(base: Base, tensors: Iterable[Tensor]) -> frozenset[str]:
    """Names of the base's parameters and buffers that lie in the memory of these tensors, in part or as a whole."""
    own = [*base.model.named_parameters(), *base.model.named_buffers()]
    spans = sorted((*_span(value), name) for name, value in own if value.numel())
    starts = [start for start, _, _ in spans]
    found = set()
    for value in tensors:
        start, end = _span(value)
        # weights do not overlap each other, so only the last that begins before `end` can reach into this one, or those between
        place = bisect.bisect_left(starts, end) - 1
        while place >= 0 and value.numel() and spans[place][1] > start:
            found.add(spans[place][2])
            place -= 1
    return frozenset(found)


def _span(value: Tensor) -> tuple[int, int]:
    return value.data_ptr(), value.data_ptr() + value.numel() * value.element_size()


def take(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str) -> None:
    """Check that an artifact's tensors are those that this method has on this base.

    Raises:
        ArtifactError: the first that differs.
    """
    missing, extra = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing:
        instead = f"; it holds {quote(extra[0])}, which is not there" if extra else ""
        raise ArtifactError(
            f"method {name!r} needs {quote(missing[0])} on this base, the artifact does not hold it{instead}"
        )
    if extra:
        raise ArtifactError(f"method {name!r} has no {quote(extra[0])} on this base, the artifact holds it")
    for key, value in tensors.items():
        if value.shape != expected[key].shape:
            raise ArtifactError(
                f"{quote(key)} has shape {list(value.shape)}, this base needs {list(expected[key].shape)}"
            )


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In fp32 on the CPU, detached."""
    return {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in tensors.items()}
