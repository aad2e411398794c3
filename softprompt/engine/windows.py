"""States of every token of a row's text, also where the row is read in several windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..types import Example
from .encode import TOKENS_PER_FORWARD, buckets
from .engine import Engine
from .plan import Learned


def token_states(engine: Engine, examples: Sequence[Example], learned: Learned) -> list[Tensor]:
    """Last hidden states of the text's tokens, per row [T, H]: all windows of a row, end to end.

    Rows in windows need no more memory than as many rows of one window each (or `TOKENS_PER_FORWARD`). More windows run
    in several forwards, which a backward computes again, one by one.
    """
    windows = [window for one in examples for window in one.runs]
    sizes = [engine.size(window) for window in windows]
    most = max(TOKENS_PER_FORWARD, len(examples) * max(sizes))
    parts = [list(range(len(windows)))] if len(windows) == len(examples) else list(buckets(sizes, most))
    states: dict[int, Tensor] = {}
    for part in parts:
        some = [windows[index] for index in part]
        if len(parts) > 1 and torch.is_grad_enabled():
            texts = checkpoint(engine.text_states, some, learned, use_reentrant=False)
        else:
            texts = engine.text_states(some, learned)
        states.update(zip(part, texts, strict=True))
    ordered = iter(states[index] for index in range(len(windows)))
    return [torch.cat([next(ordered) for _ in one.runs]) for one in examples]


def in_forwards(engine: Engine, examples: Sequence[Example]) -> Iterator[list[int]]:
    """Indices of the examples of each forward, of like length."""
    return buckets([engine.size(example) for example in examples])
