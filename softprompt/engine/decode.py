"""Free answers: transformers' own `generate` over rows whose contexts have run already, each behind its own prompt.

`generate` decides what comes next (greedy, beams, sampling, stop strings, streaming); the forward is ours. So a prompt in
the middle of a row, kept texts, sliding windows and a batch of different artifacts work as they do everywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..base import check_numbers
from ..types import Ids
from .batch import BatchOutput
from .texts import stops_in, text_of

if TYPE_CHECKING:
    from transformers.generation.streamers import BaseStreamer


@dataclass(frozen=True)
class Answer:
    """What was written behind a row: its ids without the token that ends it, and whether it ended before the limit."""

    ids: Ids
    ended: bool


@torch.no_grad()
def generate(
    batch: BatchOutput,
    tokenizer: Any,
    ends: Sequence[int],
    settings: dict[str, Any],
    stops: Sequence[str] = (),
    seeds: Sequence[int] = (),
    streamer: BaseStreamer | None = None,
) -> list[Answer]:
    """Continue every row's context. Penalties and stop strings see what has been written, and nothing before it.

    Args:
        batch: contexts, recorded.
        ends: tokens that end an answer.
        settings: `max_new_tokens`, `num_beams`, `do_sample`, `temperature`, `top_p`, `top_k`, `repetition_penalty`.
        stops: texts that end an answer; they stay at its end.
        seeds: one a row, of what it draws.
        streamer: called with every token as it comes, for one row at a time.

    Raises:
        BaseModelError: a row's states are NaN.
    """
    check_numbers(batch.last, f"base {batch.base.name!r}")
    from transformers import GenerationConfig, StoppingCriteriaList  # with what it brings along, so only now

    from .continued import GenerationAdapter, Stops
    from .draws import Draws, processors

    draws = Draws(seeds) if settings.get("do_sample") else None
    beams = settings.get("num_beams", 1)
    config = GenerationConfig(
        max_new_tokens=settings["max_new_tokens"],
        num_beams=beams,
        # one token a row is drawn by a processor; of what beams see, none is left out by transformers' own top-k of 50
        **({"do_sample": True, "top_k": 0} if draws is not None and beams > 1 else {}),
        eos_token_id=list(ends) or None,
        pad_token_id=ends[0]
        if ends
        else None,  # rows that have ended are filled up with an end, so padding ends nothing
    )
    found = GenerationAdapter(batch, draws).generate(
        inputs_embeds=batch.last[:, None],  # stands for the context; no ids do, so processors see none
        attention_mask=torch.ones(len(batch.lengths), 1, device=batch.states.device),
        generation_config=config,
        logits_processor=processors(settings, len(ends), draws),
        stopping_criteria=StoppingCriteriaList([Stops(tokenizer, stops)] if stops else []),
        streamer=streamer,
    )
    return [answer_of(row, {*ends}, tokenizer, stops) for row in found.tolist()]


def answer_of(row: Sequence[int], ends: set[int], tokenizer: Any, stops: Sequence[str]) -> Answer:
    """What was written, up to the first token that ends it.

    Args:
        row: ids behind a context.
        ends, stops: tokens and texts that end an answer.
    """
    # where nothing ends an answer, beams are filled up with -1
    place = next((place for place, token in enumerate(row) if token in ends or token < 0), None)
    ids = tuple(row[:place])
    return Answer(ids, place is not None or (bool(stops) and stops_in(text_of(tokenizer, ids), stops)))
