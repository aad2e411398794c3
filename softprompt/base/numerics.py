"""How a base's numbers are held and computed, by name: part of manifests and of the digests that kept rows go by."""

from __future__ import annotations

import torch

from .shape import DTYPES


class Numerics:
    """Facts that follow from how a base was loaded and is run."""

    dtype: torch.dtype
    quantization: str | None
    isolated: bool
    autocast: torch.dtype | None

    @property
    def label_of_dtype(self) -> str:
        """Number format of most weights: `fp32`, `bf16`, `fp16`, `int8` or `nf4`."""
        return self.quantization or next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    @property
    def arithmetic(self) -> str:
        """What decides the numbers besides the checkpoint. Results of one arithmetic are not reused under another."""
        autocast = f"autocast {self.autocast}" if self.autocast else None
        parts = [str(self.dtype), self.quantization, None if self.isolated else "batched", autocast]
        return " ".join(part for part in parts if part)
