"""The text of an answer, told while it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers.generation.streamers import BaseStreamer

from .engine import stops_in, text_of
from .tasks import BoundTask


class AnswerStreamer(BaseStreamer):
    """Tells the text of one answer as its tokens come: all that is sure to stand in the answer, and nothing else."""

    def __init__(self, bound: BoundTask, tell: Callable[[str], object]) -> None:
        self._bound, self._tell, self._told = bound, tell, ""
        self._ids: list[int] = []
        self._ended = False

    def put(self, value: Any) -> None:
        """New tokens, [1] or [1, n] (first those of the context, of which there are none)."""
        for token in value.flatten().tolist():
            self._ended = self._ended or token in self._bound.ends
            if not self._ended:
                self._ids.append(token)
        self._tell_new(self._bound.read(tuple(self._ids), more=True))

    def end(self) -> None:
        """What was held back is part of the answer, too."""
        ended = self._ended or stops_in(text_of(self._bound.prompter.tokenizer, self._ids), self._bound.stops)
        self._tell_new(self._bound.read(tuple(self._ids), ended))

    def _tell_new(self, answer: str) -> None:
        if answer.startswith(self._told) and answer != self._told:
            self._tell(answer[len(self._told) :])
            self._told = answer
