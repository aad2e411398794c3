"""A task bound to a base's tokenizer: rows become ids, and ids that were written become answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ..data import Row
from ..engine import lay_out
from ..errors import ConfigError, DataError
from ..template import Prompter
from ..types import Example, Ids

if TYPE_CHECKING:
    from .base import Task
    from .span import Span


class BoundTask:
    """A task with a tokenizer: rows become examples.

    Attributes:
        head, cue, tail: ids that all rows share.
        slots: those of a row, before a method puts its own in: `SLOTS` unless the template has some of its own.
        groups: the template's soft slots where they are learned.
        ends: tokens that end a written answer; the first of them is learned at the end of each.
        points: rows are prepared for a head that points at answers.
        cut: how many texts had to be truncated so far.
    """

    def __init__(self, task: Task, prompter: Prompter, room: int, decoder: bool = False) -> None:
        self.task, self.prompter = task, prompter
        self.head, self.cue, self.tail = prompter.head, prompter.cue, prompter.tail
        self.groups = prompter.groups
        sizes = {"head": len(self.head), "cue": len(self.cue)}
        self.slots = lay_out(prompter.names, prompter.holes, sizes, bool(self.tail), decoder)
        self.room = room - len(self.head) - len(self.cue) - len(self.tail)
        self.cut = 0
        self.ends: Ids = prompter.ends if task.answering == "generated" else ()
        self.points = False
        self._answers: dict[str, Ids] = {}

    def example(self, values: dict[str, Any], where: str = "row") -> Example:
        """A row as ids. Too long a text is truncated, never the template.

        Raises:
            DataError: the template alone leaves no room for a text.
        """
        if self.points:
            return self._pointed(values, where)
        words, gold = self.task.candidates(values)
        candidates = tuple(self.answer(word) for word in words)
        text, holes = (found := self.prompter.row(self.task.shown(values), where)).ids, found.holes
        room = self.room - max((len(ids) for ids in candidates), default=0)
        room = min(room, self.room - self.task.longest_answer) if not candidates else room
        if room < 1:
            raise DataError(
                f"{where}: the template, its demonstrations and the prompt leave no room for the text "
                f"({1 - room} tokens too many for this base); shorten them"
            )
        room = min(room, self.task.spec.max_text_tokens or room)
        truncated = len(text) > room
        self.cut += truncated
        kept = text[-room:] if self.prompter.keeps_end else text[:room]
        holes = tuple(min(hole, room) for hole in holes)
        return Example(kept, candidates, gold, where, values, truncated, holes=holes)

    def _pointed(self, values: dict[str, Any], where: str) -> Example:
        """A row whose answer is pointed at.

        Raises:
            DataError: the template does not show the context as it is.
        """
        task = cast("Span", self.task)
        if any(slot.part is not None for slot in self.slots):
            raise ConfigError(
                "template.input has soft slots inside, where answers are pointed at; move them in front or behind"
            )
        own, text, offsets = self.prompter.offsets(values, where)
        context = str(values["context"])
        begin = own.rfind(context)
        if begin < 0:
            raise DataError(
                f"{where}: template.input must show {{{{ context }}}} as it is, for its words to be pointed at"
            )
        end, room = begin + len(context), min(self.room, task.spec.max_text_tokens or self.room)
        points = tuple((a - begin, b - begin) if begin <= a < b <= end else (0, 0) for a, b in offsets[:room])
        if not any(b > a for a, b in points):
            raise DataError(f"{where}: the template leaves no room for the context; shorten it")
        span = None
        for answer, start in task.spans(values):
            held = [k for k, (a, b) in enumerate(points) if start is not None and a < start + len(answer) and b > start]
            if held and points[held[-1]][1] >= start + len(answer):  # type: ignore[operator]
                span = (held[0], held[-1])
                break
        self.cut += len(text) > room
        gold = 0 if span is not None else None
        return Example(text[:room], ((0,),), gold, where, values, len(text) > room, points=points, span=span)

    def examples(self, rows: Sequence[Row]) -> list[Example]:
        """All rows as examples."""
        return [self.example(row.values, row.where) for row in rows]

    def answer(self, word: str) -> Ids:
        """Ids of an answer's text (kept: a task asks for the same few again and again)."""
        if word not in self._answers:
            self._answers[word] = (*self.prompter.answer(word), *self.ends[:1])
        return self._answers[word]

    def read(self, ids: Ids) -> str:
        """What was written behind a row, as its answer."""
        text = self.prompter.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return self.task.answer_of(text)
