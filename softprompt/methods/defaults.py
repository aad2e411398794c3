"""How a method is trained unless the user says otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainDefaults:
    """Settings that train this method well when the user sets none (measured; see `benchmarks/LOG.md`).

    `min_steps`: few rows get more epochs, up to this many steps, and smaller batches, down to `least_batch` rows.
    `head_lr`: a head's learning rate, in proportion to `lr`.
    """

    lr: float = 0.0
    head_lr: float = 5e-3
    epochs: int = 4
    min_steps: int = 0
    batch_size: int = 32
    least_batch: int = 8
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = 0.06
    weight_decay: float = 0.0
    word_dropout: float = 0.0

    def batch_for(self, rows: int) -> int:
        """Rows of a step when there are so many in all: with few, a sixteenth of them, so that an epoch has more steps."""
        return min(self.batch_size, max(self.least_batch, rows // 16)) if self.min_steps else self.batch_size
