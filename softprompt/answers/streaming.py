"""The text of an answer, streamed while it is generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from transformers.generation.streamers import BaseStreamer

from ..types import Ids


class Reader(Protocol):
    """What reads the text of an answer off its ids (see `Generated`)."""

    @property
    def ends(self) -> Sequence[int]:
        """Tokens that end an answer."""

    def read(self, ids: Ids, ended: bool = False, more: bool = False) -> str:
        """The answer that these ids are, or begin."""

    def stops_in(self, ids: Ids) -> bool:
        """Whether a text that ends an answer stands there."""


class AnswerStreamer(BaseStreamer):
    """Tells the text of one answer as its tokens come: all that is sure to stand in the answer, and nothing else."""

    def __init__(self, reader: Reader, tell: Callable[[str], object]) -> None:
        self._reader, self._tell, self._told = reader, tell, ""
        self._ids: list[int] = []
        self._ended = False

    def put(self, value: Any) -> None:
        """New tokens, [1] or [1, n] (first those of the context, of which there are none)."""
        for token in value.flatten().tolist():
            self._ended = self._ended or token in self._reader.ends
            if not self._ended:
                self._ids.append(token)
        self._tell_new(self._reader.read(tuple(self._ids), more=True))

    def end(self) -> None:
        """What was held back is part of the answer, too."""
        ids = tuple(self._ids)
        self._tell_new(self._reader.read(ids, self._ended or self._reader.stops_in(ids)))

    def _tell_new(self, answer: str) -> None:
        if answer.startswith(self._told) and answer != self._told:
            self._tell(answer[len(self._told) :])
            self._told = answer
