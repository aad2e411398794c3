"""Answers that are pointed at: which token of the row's text begins the answer, and which one ends it.

The head reads every token of the text (Devlin et al. 2019, arXiv:1810.04805, §4.2): two logits each, a softmax over the
tokens of the context for either end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..types import Example


def pointers(states: Sequence[Tensor], examples: Sequence[Example], head: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Log-probabilities of beginning and end, per row [T, 2]; −∞ where a token is no part of the context.

    Args:
        states: of each row's text tokens [T, H].
    """
    logits = head(torch.cat(list(states)).float()).split([len(rows) for rows in states])
    found = []
    for own, example in zip(logits, examples, strict=True):
        inside = torch.tensor([end > start for start, end in example.points], device=own.device)
        found.append(own.masked_fill(~inside[:, None], float("-inf")).log_softmax(0))
    return found


def loss(found: Sequence[Tensor], examples: Sequence[Example]) -> Tensor:
    """Σ over rows of the mean cross-entropy of beginning and end."""
    total = found[0].new_zeros(())
    for own, example in zip(found, examples, strict=True):
        assert example.span is not None
        total = total - (own[example.span[0], 0] + own[example.span[1], 1]) / 2
    return total


def best_span(own: Tensor, longest: int) -> tuple[int, int]:
    """The most likely (first, last) token with first ≤ last < first + longest, of [T, 2]."""
    both = own[:, None, 0] + own[None, :, 1]
    size = len(own)
    apart = torch.arange(size)[None] - torch.arange(size)[:, None]
    fits = (apart >= 0) & (apart < longest)
    place = int(both.cpu().masked_fill(~fits, float("-inf")).argmax())
    return place // size, place % size


def padded(found: Sequence[Tensor], width: int) -> Tensor:
    """Rows as one grid [2B, width] for who only compares them; what is no context gets the row's least value."""
    rows = []
    for own in found:
        outside = own == float("-inf")
        least = float(own[~outside].detach().min())
        rows.append(F.pad(own.masked_fill(outside, least), (0, 0, 0, width - len(own)), value=least))
    return torch.stack(rows).transpose(1, 2).flatten(0, 1)


def whole_words(text: str, begin: int, end: int) -> str:
    """The stretch, made longer where it cuts a word written with letters; Chinese and its like have no such words."""
    while 0 < begin < end and _one_word(text[begin - 1], text[begin]):
        begin -= 1
    while begin < end < len(text) and _one_word(text[end - 1], text[end]):
        end += 1
    return text[begin:end]


def _one_word(left: str, right: str) -> bool:
    return all(char.isalnum() and ord(char) < 0x2E80 for char in (left, right))
