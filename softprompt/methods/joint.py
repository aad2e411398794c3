"""Several methods learned together in one run: a prompt with LoRA, a prefix with an infix (asked for in PEFT #183, #720)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from ..base import Base
from ..engine import Learned, Slot
from ..errors import ArtifactError, ConfigError
from ..tasks import BoundTask
from .base import Method, MethodSpec, Place, Stores, TrainDefaults, make_method

MAX_PARTS = 16


class JointSpec(MethodSpec):
    """Settings of `joint`.

    Attributes:
        parts: two or more methods, each a name or a mapping with `name` and settings; at most one changes weights. Each
            is trained with its own learning rate. `train.lr` sets that of the first; the others keep their ratio to it.
    """

    parts: list[str | dict[str, Any]] = Field(default=["soft", "lora"], min_length=2, max_length=MAX_PARTS)


class Joint(Method):
    """Each part puts its segment into the slots; what it begins from, it computes on the branch of the parts before it."""

    title = "several methods learned together, e.g. a soft prompt with LoRA"
    Spec = JointSpec
    stores: Stores = "other"
    place: Place = "other"
    spec: JointSpec

    def __init__(self, spec: MethodSpec) -> None:
        super().__init__(spec)
        self.parts = [make_method(part, f"method.parts[{place}]") for place, part in enumerate(self.spec.parts)]
        if sum(part.stores == "weights" for part in self.parts) > 1:
            raise ConfigError(
                "method.parts: more than one changes the base's weights; keep one of them (prompts may be many)"
            )
        for part in self.parts:
            if isinstance(part, Joint):
                raise ConfigError("method.parts: a joint method cannot be part of another; name its parts here")
            if not part.defaults.lr:
                raise ConfigError(f"method.parts: {part.spec.name!r} is not trained by gradients; use methods that are")

    @property
    def defaults(self) -> TrainDefaults:  # type: ignore[override]
        """Those of the first part."""
        return self.parts[0].defaults

    @property
    def keeps_instruction(self) -> bool:
        """As the first part does."""
        return self.parts[0].keeps_instruction

    @property
    def length(self) -> int:
        """Learned tokens of all parts."""
        return sum(part.length for part in self.parts)

    @property
    def positions(self) -> int:
        """Positions that all parts take."""
        return sum(part.positions for part in self.parts)

    @property
    def first_layer(self) -> int:  # type: ignore[override]
        """The lowest of the parts'."""
        return min(part.first_layer for part in self.parts)

    @property
    def learns_slots(self) -> bool:  # type: ignore[override]
        """Whether a part does."""
        return any(part.learns_slots for part in self.parts)

    def segments(self, slots: Sequence[Slot], cue: int) -> tuple[Slot, ...]:
        """Every part's segment under a name of its own; the template's soft slots are those of the part that learns them.

        Raises:
            ConfigError: two parts learn them.
        """
        soft = {slot.name for slot in slots if slot.learned}
        if soft and sum(part.learns_slots for part in self.parts) > 1:
            raise ConfigError("method.parts: more than one learns the template's soft slots; keep one of them")
        for place, part in enumerate(self.parts):
            others = set() if part.learns_slots else soft
            slots = [
                replace(slot, name=f"{place}.{slot.name}")
                if slot.learned and "." not in slot.name and slot.name not in others
                else slot
                for slot in part.segments(slots, cue)
            ]
        return tuple(slots)

    def attach(self, base: Base, bound: BoundTask, seed: int) -> None:
        """Part by part; what a part writes into its settings is written into these."""
        parts = list(self.spec.parts)
        for place, part in enumerate(self.parts):
            before = part.spec
            part.attach(base, bound, seed)
            base = part.learned().base or base
            if part.spec != before:
                parts[place] = part.spec.model_dump(mode="json", exclude_none=True)
        self.spec = self.spec.model_copy(update={"parts": parts})

    def parameters(self) -> list[nn.Parameter]:
        """Those of all parts."""
        return [parameter for part in self.parts for parameter in part.parameters()]

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Each part's learning rate as a multiple of the first's."""
        first = self.parts[0].defaults.lr
        return [(some, scale * part.defaults.lr / first) for part in self.parts for some, scale in part.groups()]

    def learned(self) -> Learned:
        """All segments, and the last branch, which holds the weights of all parts."""
        found = [part.learned() for part in self.parts]
        segments = {f"{place}.{name}": value for place, one in enumerate(found) for name, value in one.segments.items()}
        return Learned(segments, next((one.base for one in reversed(found) if one.base is not None), None))

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Of all parts."""
        with contextlib.ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.training())
            yield

    def export(self) -> dict[str, Tensor]:
        """Every part's tensors behind the number of the part."""
        return {
            f"{place}.{name}": value for place, part in enumerate(self.parts) for name, value in part.export().items()
        }

    def mean_of(self, members: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
        """Part by part; what a part writes into its settings is written into these."""
        found, parts = {}, list(self.spec.parts)
        for place, part in enumerate(self.parts):
            start = f"{place}."
            mine = [{name.removeprefix(start): one[name] for name in one if name.startswith(start)} for one in members]
            before = part.spec
            found.update({start + name: value for name, value in part.mean_of(mine, weights).items()})
            if part.spec != before:
                parts[place] = part.spec.model_dump(mode="json", exclude_none=True)
        self.spec = self.spec.model_copy(update={"parts": parts})
        return found

    def restore(self, tensors: dict[str, Tensor], base: Base) -> None:
        """Part by part."""
        held: list[dict[str, Tensor]] = [{} for _ in self.parts]
        numbered = {str(index): mine for index, mine in enumerate(held)}
        for name, value in tensors.items():
            index, _, rest = name.partition(".")
            if index not in numbered:
                raise ArtifactError(
                    f"a joint artifact of {len(self.parts)} parts holds {name!r}, which belongs to none"
                )
            numbered[index][rest] = value
        for part, mine in zip(self.parts, held, strict=True):
            part.restore(mine, base)
            base = part.learned().base or base
