"""Infix tuning: the prompt between the input and the answer (Li & Liang 2021, §7.2), on texts that are encoded once.

Nothing learned stands before the text, so on a causal model its K/V never changes: a training step runs only the cue's
last tokens and the answer. The task's instruction stays in front and is run once per task, so the text is read with the
task in mind. This brings infix up to the methods whose prompt stands in front.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from ..base import Base
from ..engine import Slot
from ..errors import ConfigError
from ..tasks import BoundTask
from .base import LearnedTensor, MethodSpec, TrainDefaults
from .init import Init, init_embeddings, init_kv


class InfixSpec(MethodSpec):
    """Settings of `infix`.

    Attributes:
        length: learned tokens P.
        form: `kv` (keys and values per layer, without a position of their own) or `embeddings` (tokens that run in
            every row).
        cue: how many of the template's last tokens stand behind the prompt and run every step; `kv` needs ≥ 1. It has
            no effect on an encoder–decoder base: there the prompt stands in front of the decoder's output.
        init: initial values: `text`, `vocabulary` (common tokens), `labels` (the label words), `random` or `artifact`.
        text: the text for `init: text`; null: the task's instruction.
        artifact: the folder for `init: artifact`, or `hub:OWNER/NAME[@REVISION][@sha256:DIGEST]`.
        instruction: keep the task's instruction in front of the text (null: as in `hard`).
        turned: written by training: learned keys were rotated to their position in each row, in every layer whose keys
            rotate. Artifacts without it have format 1, in which the rotation of some families was not known; their keys
            are not rotated.
    """

    length: PositiveInt = 10
    form: Literal["kv", "embeddings"] = "kv"
    cue: PositiveInt = 1
    init: Init = "text"
    text: str | None = None
    artifact: str | None = None
    instruction: bool | None = None
    turned: bool | None = None


class Infix(LearnedTensor):
    """`[prefix_ids][text][cue …][prompt][… cue][answer]`: everything before the prompt is encoded once and kept.

    A sequence-to-sequence base's decoder has it in front of the answer, behind which the encoder's states are kept.

    Learned keys take no position of their own. They are kept relative to the cue, so in rows of all lengths the cue sees them
    at the same distance (`base/rotary.py`).
    """

    title = "learned K/V (or embeddings) between text and answer; texts are encoded once (Li & Liang 2021)"
    Spec = InfixSpec
    defaults: ClassVar[TrainDefaults] = TrainDefaults(
        lr=3e-2, epochs=3, min_steps=96, batch_size=32, least_batch=16, warmup=0.3
    )
    place = "infix"
    spec: InfixSpec

    @property
    def stores(self) -> Literal["kv", "embeddings"]:  # type: ignore[override]
        """By form."""
        return self.spec.form

    @property
    def key(self) -> str:  # type: ignore[override]
        """Name of the tensor."""
        return "infix_kv" if self.spec.form == "kv" else "prompt_embeddings"

    @property
    def length(self) -> int:
        """P."""
        return self.spec.length

    @property
    def positions(self) -> int:
        """P for embeddings; learned K/V take none: the cue goes on where the text ended."""
        return self.spec.length if self.spec.form == "embeddings" else 0

    def segments(self, slots: Sequence[Slot], cue: int) -> tuple[Slot, ...]:
        """The prompt in front of the cue's last tokens.

        Of a sequence-to-sequence base it stands in front of all that the decoder writes.

        Raises:
            ConfigError: the template has fewer cue tokens than asked for.
        """
        tokens = self.spec.form == "embeddings"
        prompt = Slot("prompt", learned=self.spec.form, takes_positions=tokens, rotated=self.spec.turned is not False)
        writes = next((place for place, slot in enumerate(slots) if slot.decoder), None)
        if writes is not None:
            return (*slots[:writes], replace(prompt, decoder=True), *slots[writes:])
        if self.spec.cue > cue:
            raise ConfigError(
                f"method.cue is {self.spec.cue}, but the template has {cue} tokens between input and answer; "
                "lower method.cue or write a longer template.cue, e.g. '\\nSentiment:'"
            )
        placed: list[Slot] = []
        at = cue - self.spec.cue
        for slot in slots:  # the cue may stand in parts, round soft slots of the template
            if slot.name == "cue" and (slot.start or 0) <= at < (cue if slot.stop is None else slot.stop):
                placed.append(replace(slot, stop=at))
                placed.append(prompt)
                placed.append(replace(slot, start=at))
            else:
                placed.append(slot)
        return tuple(placed)

    def attach(self, base: Base, bound: BoundTask, seed: int) -> None:
        """Start from a text: its embeddings, or their K/V as if the text stood right in front of the cue.

        Raises:
            BaseModelError: the rotation of this base's keys with their position was not found.
        """
        self.spec = spec = self.spec.model_copy(update={"turned": True if self.spec.form == "kv" else None})
        if spec.form == "embeddings":
            self.make(init_embeddings(base, bound, spec.init, spec.length, seed, spec.text, spec.artifact))
            return
        value = init_kv(base, bound, spec.init, spec.length, seed, spec.text, spec.artifact, self.place)
        if spec.init != "artifact":  # computed at positions 0..P-1; the cue stands at 0
            back = torch.tensor([-spec.length], device=base.device)
            value = torch.stack([torch.cat(tuple(layer)) for layer in base.rotate(value.unsqueeze(2), back)])
        self.make(value)

    def restore(self, tensors: dict[str, Tensor], base: Base) -> None:
        """Take the tensor back. Keys that were trained without their rotation are used without it, which a warning says."""
        super().restore(tensors, base)
        if self.spec.form == "kv" and self.spec.turned is None and not base.rotated_in_format_1:
            self.spec = self.spec.model_copy(update={"turned": False})
            warnings.warn(
                f"this infix was trained on base {base.name!r} when the rotation of its keys was not known. So they are not "
                "rotated, and stand at another distance in rows of other lengths; train it again to have them rotated",
                stacklevel=2,
            )

    def shape(self, base: Base) -> tuple[int, ...]:
        """[L, 2, G, P, D] or [P, H]."""
        s = base.shape
        if self.spec.form == "embeddings":
            return self.spec.length, s.embedded
        return s.layers, 2, s.kv_heads, self.spec.length, s.head_size
