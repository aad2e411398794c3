"""Losses of rows, each times its weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ..types import Example


def summed_loss(logits: Tensor, targets: Tensor, rows: Sequence[Example], sizes: Sequence[int]) -> Tensor:
    """Σ cross-entropy, each row's times its weight.

    Args:
        logits: [A, V], the rows' one after the other.
        targets: [A].
        sizes: how many of them each row has.
    """
    if all(row.weight == 1 for row in rows):  # in one sum: another order would change its last bits
        return F.cross_entropy(logits, targets, reduction="sum")
    weights = [row.weight for row, size in zip(rows, sizes, strict=True) for _ in range(size)]
    return (F.cross_entropy(logits, targets, reduction="none") * logits.new_tensor(weights)).sum()
