"""Answers that are pointed at: which token of the row's text begins the answer, and which one ends it.

The head reads every token of the text (Devlin et al. 2019, arXiv:1810.04805, §4.2): two logits each, a softmax over the
tokens of the context for either end. Of a row in several windows it is one softmax over the tokens of all of them ("shared
normalization": Clark & Gardner 2018, arXiv:1710.10723), so a window without the answer learns to say so, and what it
says can be compared with what the others say.
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
        states: of the text tokens of each row, or window by window, [T, H].
    """
    logits = head(torch.cat(list(states)).float()).split([len(one.text) for one in examples])
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


def best_span(own: Tensor, longest: int, windows: Sequence[int] = ()) -> tuple[int, int]:
    """The most likely (first, last) token with first ≤ last < first + longest, of [T, 2].

    Args:
        windows: sizes of the row's windows, in one of which a span must lie; none: the row is one.
    """
    found, begin = [], 0
    for part in own.cpu().split(list(windows) or len(own)):
        size = len(part)
        both = part[:, None, 0] + part[None, :, 1]
        apart = torch.arange(size)[None] - torch.arange(size)[:, None]
        fits = (apart >= 0) & (apart < longest)
        both = both.masked_fill(~fits, float("-inf")).flatten()
        place = int(both.argmax())
        found.append((float(both[place]), begin + place // size, begin + place % size))
        begin += size
    _, first, last = max(found, key=lambda one: one[0])
    return first, last


def right_window(own: Tensor, example: Example) -> tuple[Tensor, tuple[int, int]]:
    """Of a row [T, 2], the window that holds the right answer (or the first), and the answer's place in it."""
    first, last = example.span or (0, 0)
    begin = 0
    for size in example.windows:
        if first < begin + size:
            return own[begin : begin + size], (first - begin, last - begin)
        begin += size
    return own, (first, last)


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
