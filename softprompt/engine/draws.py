"""Tokens that are drawn: each row has random numbers of its own, so neither its company nor other threads change its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


class Draws:
    """Random numbers of B rows, one generator each. They are made on the CPU, so they are the same on every device.

    The process's own random state is neither read nor moved.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, scores: Tensor, count: int = 1) -> Tensor:
        """Draw `count` different columns of each row of scores [B, N], with softmax's probabilities: [B, count]."""
        weights = scores.double().softmax(-1)
        drawn = []
        for _ in range(count):
            total = weights.cumsum(-1)
            numbers = torch.cat([torch.rand(1, generator=own, dtype=torch.float64) for own in self._generators])
            point = numbers.to(total.device)[:, None] * total[:, -1:]
            column = torch.searchsorted(total, point, right=True).clamp(max=scores.shape[-1] - 1)
            weights = weights.scatter(1, column, 0.0)
            drawn.append(column)
        return torch.cat(drawn, dim=1)


class Drawn(LogitsProcessor):
    """Leaves one token of each row, drawn from what the processors before have left."""

    def __init__(self, draws: Draws) -> None:
        self._draws = draws

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        """Scores [B, V] with all but the drawn token at -inf."""
        return torch.full_like(scores, -torch.inf).scatter(1, self._draws(scores), 0.0)


def processors(settings: dict[str, Any], ends: int, draws: Draws | None) -> LogitsProcessorList:
    """What changes the next token's scores, in transformers' order: penalty, temperature, top-k, top-p, draw.

    Args:
        settings: as of `generate`.
        ends: how many tokens end an answer.
        draws: where tokens are drawn.
    """
    found = LogitsProcessorList()
    if (penalty := settings.get("repetition_penalty", 1.0)) != 1.0:
        found.append(RepetitionPenaltyLogitsProcessor(penalty))
    if draws is None:
        return found
    beams = settings.get("num_beams", 1) > 1
    least = ends + 1 if beams else 1  # beams need a token to go on with, beside those that end
    if (temperature := settings.get("temperature", 1.0)) != 1.0:
        found.append(TemperatureLogitsWarper(temperature))
    if top_k := settings.get("top_k", 0):
        found.append(TopKLogitsWarper(top_k, min_tokens_to_keep=least))
    if (top_p := settings.get("top_p", 1.0)) < 1.0:
        found.append(TopPLogitsWarper(top_p, min_tokens_to_keep=least))
    if not beams:  # these draw among all continuations: see `GenerationAdapter`
        found.append(Drawn(draws))
    return found
