"""The text of an answer, told while it is written."""

from __future__ import annotations

from collections.abc import Callable

from transformers import TextStreamer

from .tasks import BoundTask


class Told(TextStreamer):
    """Tells the text of an answer as its tokens come, up to where it ends."""

    def __init__(self, bound: BoundTask, tell: Callable[[str], object]) -> None:
        super().__init__(bound.prompter.tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._bound, self._tell, self._all, self._told = bound, tell, "", ""

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """A piece that will not change any more."""
        self._all += text
        answer = self._bound.task.answer_of(self._all)
        if answer.startswith(self._told) and answer != self._told:
            self._tell(answer[len(self._told) :])
            self._told = answer
