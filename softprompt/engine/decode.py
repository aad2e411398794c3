"""Free answers: transformers' own `generate` over rows whose contexts have run already, each behind its own prompt.

`generate` decides what comes next (greedy, beams, sampling, stop strings, streaming); the forward is ours. So a prompt in
the middle of a row, kept texts, sliding windows and a batch of different artifacts work as they do everywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..types import Ids
from .batch import Batch

if TYPE_CHECKING:
    from transformers.generation.streamers import BaseStreamer


@torch.no_grad()
def generate(
    batch: Batch,
    tokenizer: Any,
    ends: Sequence[int],
    settings: dict[str, Any],
    seed: int = 0,
    streamer: BaseStreamer | None = None,
) -> list[Ids]:
    """Continue every row's context.

    Args:
        batch: contexts, recorded.
        ends: tokens that end an answer.
        settings: of transformers' `GenerationConfig` (`max_new_tokens`, `num_beams`, `do_sample`, `stop_strings` …).
        seed: of sampling.
        streamer: told every token as it comes; of one row at a time.

    Returns:
        per row the ids of its answer, without the token that ends it.
    """
    from transformers import GenerationConfig, set_seed  # with what it brings along (PEFT, bitsandbytes), so only now

    from .continued import Continued

    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    model = Continued(batch)
    first = torch.full((len(batch.lengths), 1), pad, device=batch.states.device)  # stands for the context
    config = GenerationConfig(**settings, eos_token_id=list(ends), pad_token_id=pad, use_cache=False)
    if settings.get("do_sample"):
        set_seed(seed)
    found = model.generate(
        first,
        attention_mask=torch.ones_like(first),
        generation_config=config,
        tokenizer=tokenizer,
        streamer=streamer,
    )
    return [_until(row[1:], {*ends, pad}) for row in found.tolist()]


def _until(ids: Sequence[int], ends: set[int]) -> Ids:
    """Up to the token that ends it."""
    return tuple(ids[: next((place for place, token in enumerate(ids) if token in ends), len(ids))])
