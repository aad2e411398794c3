"""Soft prompt: P learned embeddings in front of everything (Lester, Al-Rfou & Constant 2021, arXiv:2104.08691).

Where the template has soft slots they stand there instead (Liu et al. 2021, arXiv:2103.10385): one tensor, slot after slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import PositiveInt
from torch import Tensor

from ..artifact import peft_format
from ..base import Base
from ..engine import Learned, Slot
from ..errors import ConfigError
from ..tasks import BoundTask
from .base import LearnedTensor, MethodSpec, Place, Stores, TrainDefaults
from .init import Init, init_embeddings, init_groups


class SoftSpec(MethodSpec):
    """Settings of `soft`.

    Attributes:
        length: learned tokens P. If the template has soft slots, their lengths count instead.
        init: initial values: `text`, `vocabulary` (common tokens), `labels` (the label words), `random` or `artifact`.
            As in PEFT: `normal` (its RANDOM), `any_tokens` (its SAMPLE_VOCAB) or `zero`. A soft slot may name its own
            `init`, which counts unless this is `artifact`.
        text: the text for `init: text`; null: the task's instruction.
        artifact: the folder for `init: artifact`, or `hub:OWNER/NAME[@REVISION][@sha256:DIGEST]`.
        instruction: also keep the task's instruction, behind the prompt; by default the prompt replaces it. With soft
            slots in the template the instruction always stays.
        groups: lengths of the template's soft slots. Training writes them, so that an artifact can be read without its
            task.
    """

    length: PositiveInt = 20
    init: Init = "text"
    text: str | None = None
    artifact: str | None = None
    instruction: bool = False
    groups: list[PositiveInt] | None = None


class Soft(LearnedTensor):
    """`[prompt][prefix_ids][text][cue][answer]`: the prompt and what follows it up to the text run once per step.

    A template's soft slots are learned in place of the prompt: `soft0`, `soft1`, … wherever they stand.
    """

    title = "P learned embeddings in front of the text, or in the template's soft slots (Lester et al. 2021)"
    Spec = SoftSpec
    defaults: ClassVar[TrainDefaults] = TrainDefaults(lr=1e-2, epochs=3, min_steps=144, batch_size=16, warmup=0.3)
    stores: Stores = "embeddings"
    learns_slots = True
    spec: SoftSpec
    _in_front = False  # whether the one soft slot stands in front of everything; not known of an artifact

    @property
    def place(self) -> Place:  # type: ignore[override]
        """In front, unless the template's soft slots stand elsewhere."""
        return "front" if self.spec.groups is None or self._in_front else "other"

    @property
    def length(self) -> int:
        """P: each takes a position."""
        return sum(self.spec.groups) if self.spec.groups else self.spec.length

    def segments(self, slots: Sequence[Slot], cue: int) -> tuple[Slot, ...]:
        """The prompt first, or the slots as they are where the template has soft ones.

        Raises:
            ConfigError: it was trained with other soft slots than the template has.
        """
        own, groups = [slot for slot in slots if slot.learned and "." not in slot.name], self.spec.groups or []
        if len(own) != len(groups):
            raise ConfigError(
                f"the template has {len(own)} soft slots, this prompt was trained in {len(groups)}; use the template that it "
                "was trained with"
            )
        return tuple(slots) if own else (Slot("prompt", learned="embeddings"), *slots)

    def attach(self, base: Base, bound: BoundTask, seed: int) -> None:
        """Start from text, vocabulary, label words, noise or another prompt."""
        self.make(self._start(base, bound, seed))

    def bound_to(self, bound: BoundTask) -> None:
        """Whether the template's only soft slot stands in front."""
        self._in_front = len(bound.groups) == 1 and bool(bound.slots[0].learned)

    def _start(self, base: Base, bound: BoundTask, seed: int) -> Tensor:
        """Where it starts, [P, H]; the template's soft slots are written into the settings."""
        spec, groups = self.spec, [group.length for group in bound.groups]
        self.bound_to(bound)
        base = base.reader
        if not groups:
            self.spec = spec.model_copy(update={"groups": None})
            return init_embeddings(base, bound, spec.init, spec.length, seed, spec.text, spec.artifact)
        self.spec = spec.model_copy(update={"groups": groups})
        return init_groups(base, bound, spec.init, seed, spec.text, spec.artifact)

    def learned(self) -> Learned:
        """The tensor, split by soft slot where the template has some."""
        if not self.spec.groups:
            return super().learned()
        parts = self.value.split(self.spec.groups)
        return Learned({f"soft{place}": part for place, part in enumerate(parts)})

    def shape(self, base: Base) -> tuple[int, ...]:
        """[P, H]."""
        return self.length, base.reader.shape.embedded

    def adapter_config(self, base: Base) -> dict[str, Any] | None:
        """PEFT loads it as PROMPT_TUNING, where it stands in front of everything on a causal base."""
        if self.place != "front" or not base.keeps_positions:
            return None
        return peft_format.soft_config(base.identity.hub_id, self.length, base.shape)
