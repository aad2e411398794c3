"""The weighted mean of what several have learned, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def mean_tensors(members: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Σ weight · tensor of each name, computed in double precision, in fp32.

    Args:
        members: tensors of the same names and shapes.
        weights: of each member; their sum is 1.
    """
    found = {}
    for name, first in members[0].items():
        total = torch.zeros_like(first, dtype=torch.double)
        for one, weight in zip(members, weights, strict=True):
            total.add_(one[name].double(), alpha=weight)
        found[name] = total.float()
    return found
