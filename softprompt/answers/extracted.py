"""Answers that are pointed at: which token of the row's text begins the answer, and which one ends it.

The head reads every token of the text (Devlin et al. 2019, arXiv:1810.04805, §4.2): two logits each, a softmax over the
tokens of the context for either end. A row in several windows gets one softmax over the tokens of all its windows
("shared normalization": Clark & Gardner 2018, arXiv:1710.10723). So a window without the answer learns to give it
little, and the scores of windows can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base import Base, check_numbers
from ..engine import Engine, Learned, in_forwards, token_states
from ..errors import ConfigError, DataError
from ..tasks import Task
from ..tasks.span import Span
from ..types import Example, Progress, ignore_progress
from .form import AnswerForm, Prompt, frozen_learned
from .outcome import Outcome
from .windows import ReadField, holder, in_windows

_CONTEXT = ReadField("context", "answers", "pointed at", " (its question)")


class Extracted(AnswerForm[Span]):
    """A stretch of the row's context, found by a head that reads each of its tokens."""

    reads_tokens = True

    @classmethod
    def head_size(cls, task: Task) -> int:
        """A beginning and an end."""
        return 2

    @classmethod
    def check(cls, base: Base, task: Task) -> None:
        """A base that writes does not point."""
        if not base.bidirectional:
            raise ConfigError(
                f"base {base.name!r} ({base.kind}) writes its answers, so a head cannot point at them; "
                "let it write the answer (method.head: null), or use an encoder such as minilm"
            )

    def encode(self, values: dict[str, Any], where: str = "row") -> Example:
        """A row whose answer is pointed at. Too long a one becomes several windows (see `windows.py`).

        Its right answer is the first that a window holds whole; it has none where no window does.

        Raises:
            DataError: the template does not show the context as it is, or what stands around it leaves too little room.
        """
        read = in_windows(self.bound, values, _CONTEXT, self.task.spec.window_overlap, where)
        target = None
        for answer, start in self.task.spans(values):
            if start is None:
                continue
            inside = [k for k, (a, b) in enumerate(read.offsets) if a < start + len(answer) and b > start]
            if not inside or read.offsets[inside[-1]][1] < start + len(answer):
                continue
            if (which := holder(read.bounds, inside[0], inside[-1])) is not None:
                target = (read.place(which, inside[0]), read.place(which, inside[-1]))
                break
        return read.example(values, where, target)

    def lacking(self, example: Example) -> str | None:
        """A right answer that one window holds whole."""
        if example.gold is None and example.windows:
            return "no window holds the whole of a right answer; raise task.window_overlap or leave the row out"
        return super().lacking(example)

    def pointers(self, engine: Engine, rows: Sequence[Example], learned: Learned) -> list[Tensor]:
        """Log-probabilities of beginning and end, per row [T, 2]; −∞ where a token is no part of the context."""
        assert learned.head is not None
        states = torch.cat(list(token_states(engine, rows, learned))).float()
        pointers = []
        for own, example in zip(learned.head(states).split([len(one.text) for one in rows]), rows, strict=True):
            inside = torch.tensor([end > start for start, end in example.offsets], device=own.device)
            pointers.append(own.masked_fill(~inside[:, None], float("-inf")).log_softmax(0))
        return pointers

    def logits(self, engine: Engine, rows: Sequence[Example], learned: Learned) -> tuple[Tensor, Tensor]:
        """Log-probabilities of both ends within the window of the right answer [2B, positions], and the right tokens [2B].

        Only to be compared: what is no context has the row's least value.
        """
        both = [_right_window(*pair) for pair in zip(self.pointers(engine, rows, learned), rows, strict=True)]
        logits = _padded([own for own, _ in both], engine.base.max_positions)
        return logits, torch.tensor([end for _, ends in both for end in ends], device=logits.device)

    def loss(self, engine: Engine, rows: Sequence[Example], learned: Learned) -> tuple[Tensor, int]:
        """Σ over rows of the mean cross-entropy of beginning and end, and how many rows there are."""
        pointers = self.pointers(engine, rows, learned)
        total = pointers[0].new_zeros(())
        for own, example in zip(pointers, rows, strict=True):
            first, last = _ends(example)
            total = total - example.weight * (own[first, 0] + own[last, 1]) / 2
        return total, len(rows)

    def loss_weight(self, example: Example) -> int:
        """One decision a row."""
        return 1

    @torch.no_grad()
    def predict(
        self, prompt: Prompt, rows: Sequence[Example], progress: Progress = ignore_progress, quick: bool = False
    ) -> list[Outcome]:
        """The stretch of each row's context that is pointed at, as it stands there."""
        learned, longest = frozen_learned(prompt.method), self.task.longest_answer
        outcomes: dict[int, Outcome] = {}
        for indices in in_forwards(prompt.engine, rows):
            some = [rows[index] for index in indices]
            pointers = self.pointers(prompt.engine, some, learned)
            for index, example, own in zip(indices, some, pointers, strict=True):
                check_numbers(own, example.where)
                first, last = best_span(own, longest, example.windows)
                context = str(example.values["context"])
                text = whole_words(context, example.offsets[first][0], example.offsets[last][1])
                nll = None
                if example.target is not None:
                    begin, end = _ends(example)
                    nll = -float(own[begin, 0] + own[end, 1]) / 2
                outcomes[index] = Outcome(example.where, self.task.gold(example.values), text.strip(), nll=nll)
            progress("evaluating", len(outcomes), len(rows))
        return [outcomes[index] for index in range(len(rows))]


def _ends(example: Example) -> tuple[int, int]:
    """First and last token of the right answer.

    Raises:
        DataError: no window holds it.
    """
    if example.target is None:
        raise DataError(f"{example.where}: no window holds the whole of a right answer")
    first, last = example.target
    return first, last


def best_span(own: Tensor, longest: int, windows: Sequence[int] = ()) -> tuple[int, int]:
    """The most likely (first, last) token with first ≤ last < first + longest, of [T, 2].

    Args:
        windows: sizes of the row's windows, in one of which a span must lie; none: the row is one.
    """
    best, begin = [], 0
    for window in own.cpu().split(list(windows) or len(own)):
        size = len(window)
        both = window[:, None, 0] + window[None, :, 1]
        apart = torch.arange(size)[None] - torch.arange(size)[:, None]
        fits = (apart >= 0) & (apart < longest)
        both = both.masked_fill(~fits, float("-inf")).flatten()
        index = int(both.argmax())
        best.append((float(both[index]), begin + index // size, begin + index % size))
        begin += size
    _, first, last = max(best, key=lambda one: one[0])
    return first, last


def _right_window(own: Tensor, example: Example) -> tuple[Tensor, tuple[int, int]]:
    """Of a row [T, 2], the window that holds the right answer (or the first), and the answer's place in it."""
    first, last = example.target or (0, 0)
    begin = 0
    for size in example.windows:
        if first < begin + size:
            return own[begin : begin + size], (first - begin, last - begin)
        begin += size
    return own, (first, last)


def _padded(pointers: Sequence[Tensor], width: int) -> Tensor:
    """Rows as one grid [2B, width]."""
    rows = []
    for own in pointers:
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
