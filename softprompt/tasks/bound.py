"""A task bound to a base's tokenizer: rows become ids, and ids that were written become answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from ..data import Row
from ..engine import lay_out, text_of
from ..errors import ConfigError, DataError
from ..template import Prompter, answer_frame
from ..types import Example, Ids
from .ends import ended, filled
from .windows import holder, stretches

if TYPE_CHECKING:
    from .base import Task
    from .scored import ScoredTask
    from .span import Span


class BoundTask:
    """A task with a tokenizer: rows become examples.

    Attributes:
        head, cue, tail: ids that all rows share.
        slots: those of a row, before a method puts its own in: `SLOTS` unless the template has some of its own.
        groups: the template's soft slots where they are learned.
        ends: tokens that end a written answer; the first of them is learned at the end of each.
        stops: texts that end one.
        points: rows are prepared for a head that points at answers.
        learns: something is learned from the right answers (set before the first row).
        writes: tokens of an answer that a decoder has room for; None where answers stand behind the text.
        cut: how many texts had to be truncated so far.
        tied: how many rows had different options of the same tokens so far, of which the first is always taken.
    """

    def __init__(self, task: Task, prompter: Prompter, room: int, writes: int | None = None) -> None:
        self.task, self.prompter = task, prompter
        self.head, self.cue, self.tail = prompter.head, prompter.cue, prompter.tail
        self.groups = prompter.groups
        sizes = {"head": len(self.head), "cue": len(self.cue)}
        self.slots = lay_out(prompter.names, prompter.holes, sizes, bool(self.tail), writes is not None)
        self.writes = writes
        self.room = room - len(self.head) - len(self.cue) - len(self.tail)
        if self.room < 1:  # nothing of it may run: attention over a head of any length takes any memory
            raise ConfigError(
                f"the template and its demonstrations leave no room for the text ({1 - self.room} tokens too many for this "
                "base); shorten them"
            )
        self.cut = self.tied = 0
        self.ends: Ids = prompter.ends if task.answering == "generated" else ()
        self.stops: tuple[str, ...] = (*task.stops, *prompter.end_texts) if task.answering == "generated" else ()
        self.points = False
        self.learns = True
        self._words = task.words
        # ids are kept of the words that all rows share; a row's own options are its user's texts
        framed = task.answering == "generated" and task.rules > 1
        self._frame = tuple(side.strip() for side in answer_frame(task.spec.template)) if framed else ("", "")
        self._answers: dict[str, Ids | None] = dict.fromkeys(self._words)
        self._candidates: tuple[Ids, ...] | None = None

    def reserve(self, positions: int) -> None:
        """Positions that a method takes, on either side."""
        self.room -= positions
        if self.writes is not None:
            self.writes -= positions

    def example(self, values: dict[str, Any], where: str = "row") -> Example:
        """A row as ids. Too long a text is truncated, never the template; one that is pointed at is read in windows.

        Raises:
            DataError: the template alone leaves no room for a text.
        """
        if self.points:
            return self._pointed(values, where)
        words, gold = self.task.candidates(values)
        candidates = self.candidates(words)
        self.tied += words is not self._words and len({*candidates}) < len({*words})
        text, holes = (found := self.prompter.row(self.task.shown(values), where)).ids, found.holes
        # a text is cut alike whether its answer is known yet or not
        longest = max([self.task.longest_answer, *map(len, candidates)])
        room = self.room - (longest if self.writes is None else 0)
        if self.writes is not None and longest > self.writes:
            raise DataError(
                f"{where}: an answer may have {longest} tokens, this base's decoder has room for {self.writes}; shorten it, or "
                "lower generation.max_new_tokens"
            )
        if room < 1:
            most = (
                f"generation.max_new_tokens ({own})"
                if (own := self.task.longest_answer)
                else f"answers of {longest} tokens"
            )
            raise DataError(
                f"{where}: the template, its demonstrations and the prompt leave no room for the text beside {most} "
                f"({1 - room} tokens too many for this base); shorten them, or the answers"
            )
        room = min(room, self.task.spec.max_text_tokens or room)
        truncated = len(text) > room
        self.cut += truncated
        kept = text[-room:] if self.prompter.keeps_end else text[:room]
        holes = tuple(min(hole, room) for hole in holes)
        return Example(kept, candidates, gold, where, values, truncated, holes=holes)

    def _pointed(self, values: dict[str, Any], where: str) -> Example:
        """A row whose answer is pointed at. Too long a one becomes several windows (see `windows.py`).

        Its right answer is the first that a window holds whole; it has none where no window does.

        Raises:
            DataError: the template does not show the context as it is, or what stands around it leaves too little room.
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
        points = [(a - begin, b - begin) if begin <= a < b <= end else (0, 0) for a, b in offsets]
        inside = [k for k, (a, b) in enumerate(points) if b > a]
        if not inside:
            raise DataError(f"{where}: this base's tokenizer has no tokens for the context")
        first, stop = inside[0], inside[-1] + 1
        parts = [(first, stop)]
        if len(text) > room:
            parts = stretches(first, stop, room - first - (len(text) - stop), task.spec.window_overlap, where)
        windows = [[*range(first), *range(*part), *range(stop, len(text))] for part in parts]
        span = None
        for answer, start in task.spans(values):
            held = [k for k, (a, b) in enumerate(points) if start is not None and a < start + len(answer) and b > start]
            if not held or points[held[-1]][1] < start + len(answer):  # type: ignore[operator]
                continue
            if (which := holder(parts, held[0], held[-1])) is not None:
                front = sum(map(len, windows[:which])) + first - parts[which][0]
                span = (front + held[0], front + held[-1])
                break
        order = [k for window in windows for k in window]
        return Example(
            tuple(text[k] for k in order),
            ((0,),),
            0 if span is not None else None,
            where,
            values,
            points=tuple(points[k] for k in order),
            span=span,
            windows=tuple(map(len, windows)) if len(windows) > 1 else (),
        )

    def examples(self, rows: Sequence[Row]) -> list[Example]:
        """All rows as examples."""
        return [self.example(row.values, row.where) for row in rows]

    def candidates(self, words: Sequence[str]) -> tuple[Ids, ...]:
        """Ids of a row's possible answers, in a form in which each can be told from the others (see `ends.py`)."""
        if words is not self._words:
            return self._distinct([self.answer(word) for word in words])
        if self._candidates is None:
            self._candidates = self._distinct([self.answer(word) for word in words])
        return self._candidates

    def _distinct(self, candidates: Sequence[Ids]) -> tuple[Ids, ...]:
        if self.task.answering != "scored" or self.task.rules < 2:
            return tuple(candidates)
        if not self.prompter.closing or self.writes is not None:
            return ended(candidates, self.prompter.word_end)
        if self.learns and not cast("ScoredTask", self.task).contrastive:
            return filled(candidates, self.prompter.word_end)
        return tuple(candidates)

    def answer(self, word: str) -> Ids:
        """Ids of an answer's text by itself; of one that is written with the token that ends it."""
        ids = self._answers.get(word)
        if ids is None:
            ids = (*self.prompter.answer(word, self.writes is None), *self.ends[:1])
            if word in self._answers:
                self._answers[word] = ids
        return ids

    def spoken(self, ids: Ids) -> Ids:
        """An answer's ids without the token that ends it, or the tokens that fill it up."""
        if self.task.answering == "generated":
            return ids[: len(ids) - len(self.ends[:1])]
        while len(ids) > 1 and self.task.rules > 1 and ids[-1:] == self.prompter.word_end:
            ids = ids[:-1]
        return ids

    def read(self, ids: Ids, ended: bool = False, more: bool = False) -> str:
        """What was written behind a row, as its answer: up to the first text that ends it, without the space around it.

        Args:
            ended: it was not cut at `max_new_tokens`; what was may end inside a character, which is left out.
            more: what follows is not known yet, so what may be the beginning of a text that ends it is left out, too.
        """
        text = text_of(self.prompter.tokenizer, ids)
        first = min((place for stop in self.stops if (place := text.find(stop)) >= 0), default=len(text))
        text = text[:first]
        if more:
            sizes = [size for stop in self.stops for size in range(1, len(stop)) if text.endswith(stop[:size])]
            text = text[: len(text) - max(sizes, default=0)]
        text = (text if ended else text.rstrip("\ufffd")).strip()
        return self._bare(text, more)

    def _bare(self, text: str, more: bool) -> str:
        """An answer without what the template puts around it, as far as that was written."""
        lead, tail = self._frame
        if lead and more and lead.startswith(text):
            return ""
        text = text.removeprefix(lead).lstrip() if lead else text
        if tail and more:
            held = max((size for size in range(1, len(tail) + 1) if text.endswith(tail[:size])), default=0)
            text = text[: len(text) - held]
        return text.removesuffix(tail).rstrip() if tail else text
