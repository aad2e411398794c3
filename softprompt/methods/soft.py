"""Soft prompt: P learned embeddings in front of everything (Lester, Al-Rfou & Constant 2021, arXiv:2104.08691)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import PositiveInt

from ..artifact import peft_format
from ..base import Base
from ..engine import Slot
from ..tasks import BoundTask
from .base import LearnedTensor, MethodSpec, Stores, TrainDefaults
from .init import Init, init_embeddings


class SoftSpec(MethodSpec):
    """Settings of `soft`.

    Attributes:
        length: learned tokens P.
        init: where they start: `text`, `vocabulary` (common tokens), `labels` (the label words), `random` or `artifact`.
        text: what `init: text` starts from; null: the task's instruction.
        artifact: folder that `init: artifact` starts from.
        instruction: keep the task's instruction behind the prompt as well (by default the prompt takes its place).
    """

    length: PositiveInt = 20
    init: Init = "text"
    text: str | None = None
    artifact: str | None = None
    instruction: bool = False


class Soft(LearnedTensor):
    """`[prompt][head][text][cue][answer]`: the prompt and the head run once per step, for all rows."""

    title = "P learned embeddings in front of the text (Lester et al. 2021)"
    Spec = SoftSpec
    defaults: ClassVar[TrainDefaults] = TrainDefaults(lr=1e-2, epochs=3, batch_size=16)
    stores: Stores = "embeddings"
    place = "front"
    key = "prompt_embeddings"
    spec: SoftSpec

    @property
    def keeps_instruction(self) -> bool:  # type: ignore[override]
        """Only if asked for."""
        return self.spec.instruction

    @property
    def length(self) -> int:
        """P: each takes a position."""
        return self.spec.length

    def segments(self, slots: Sequence[Slot], cue: int) -> tuple[Slot, ...]:
        """The prompt first."""
        return (Slot("prompt", learned="embeddings"), *slots)

    def attach(self, base: Base, bound: BoundTask, seed: int) -> None:
        """Start from text, vocabulary, label words, noise or another prompt."""
        spec = self.spec
        self.make(init_embeddings(base, bound, spec.init, spec.length, seed, spec.text, spec.artifact))

    def shape(self, base: Base) -> tuple[int, ...]:
        """[P, H]."""
        return self.spec.length, base.shape.hidden_size

    def adapter_config(self, base: Base) -> dict[str, Any] | None:
        """PEFT loads it as PROMPT_TUNING."""
        return peft_format.soft_config(base.name, self.spec.length, base.shape)
