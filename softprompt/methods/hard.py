"""Hard prompt: the template's own words, with or without demonstrations. Nothing is trained (Brown et al. 2020)."""

from __future__ import annotations

from .base import Method, MethodSpec


class HardSpec(MethodSpec):
    """Settings of `hard`.

    Attributes:
        instruction: keep the task's instruction. Null: yes, unless a head reads the mean of an encoder's states, which
            the instruction would dilute. The task sets the number of demonstrations: `task.demonstrations.k`.
    """

    instruction: bool | None = None


class Hard(Method):
    """`[prefix_ids][text][cue][answer]`: instruction and demonstrations run once per task, each row once."""

    title = "the template's own words: zero-shot, or few-shot with demonstrations; nothing is trained"
    Spec = HardSpec
    spec: HardSpec
