"""A task bound to a base's tokenizer: its rows and answers become ids. How a row is answered is decided in `answers/`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..engine import lay_out
from ..errors import ConfigError, DataError
from ..template import Prompter
from ..types import Ids
from .base import Task


class BoundTask:
    """A task with a tokenizer.

    Attributes:
        prefix_ids, question, cue, tail: ids that all rows share: before the text, behind it, behind everything.
        slots: those of a row, before a method puts its own in: `SLOTS` unless the template has some of its own.
        groups: the template's soft slots where they are learned.
        room: tokens that a row's text and its answer may have together.
        learns: something is learned from the right answers (set before the first row).
        writes: tokens of an answer that a decoder has room for; None where answers stand behind the text.
        form: how the task's rows are answered (see `answers/`), once it is known.
        cut: how many texts had to be truncated so far.
        tied: how many rows so far had different options with the same tokens; the first of them always counts.
    """

    def __init__(
        self,
        task: Task,
        tokenizer: Any,
        room: int,
        instruction: bool = True,
        soft: bool = False,
        closing: bool = False,
        writes: int | None = None,
        base_ends: Sequence[int] = (),
    ) -> None:
        """Tokenize what all rows share.

        Args:
            room: positions that prompt, `prefix_ids`, text, cue and (without `writes`) answer may take together.
            instruction: whether the template's instruction stands in front.
            soft, closing: whether its soft slots are learned, and texts are read both ways (see `Prompter`).
            writes: tokens that a decoder has room for, where one writes the answer (see `lay_out`).
            base_ends: tokens that the base says end a text.

        Raises:
            ConfigError: the task asks for demonstrations that were not drawn yet (training draws them); the template leaves no
                room for a text; see `Prompter`.
        """
        if task.spec.demonstrations.k and not task.spec.demonstrations.rows:
            raise ConfigError(
                f"task {task.name!r} asks for {task.spec.demonstrations.k} demonstrations that are not drawn yet; train "
                "method 'hard' and use its artifact, or give the rows in demonstrations.rows"
            )
        shots = [(task.shown(values), task.answer_word(values)) for values in task.spec.demonstrations.rows]
        how = (instruction, shots, soft, closing, task.rules, base_ends, max(10_000, 10 * room))  # in characters
        self.task, self.prompter = task, Prompter(task.spec.template, tokenizer, *how)
        prompter = self.prompter
        self.prefix_ids, self.question = prompter.prefix_ids, prompter.question
        self.cue, self.tail = prompter.cue, prompter.tail
        self.groups = prompter.groups
        sizes = {"prefix_ids": len(self.prefix_ids), "cue": len(self.cue)}
        there = bool(self.question), bool(self.tail), writes is not None
        self.slots = lay_out(prompter.names, prompter.holes, sizes, *there)
        self.writes = writes
        self.room = room - len(self.prefix_ids) - len(self.behind) - len(self.tail)
        if self.room < 1:  # nothing of it may run: attention over a prefix of any length takes any memory
            raise ConfigError(
                f"the template and its demonstrations leave no room for the text ({1 - self.room} tokens too many for this "
                "base); shorten them"
            )
        self.cut = self.tied = 0
        self.form: Any = None
        self.learns = True
        # ids are kept of the words that all rows share; a row's own options are its user's texts
        self._answers: dict[str, Ids | None] = dict.fromkeys(task.words)

    def __getattr__(self, name: str) -> Any:
        """What was asked of a bound task before, and is asked of its form now."""
        form = self.__dict__.get("form")
        if form is None or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return form.__getattr__(name)

    @property
    def behind(self) -> Ids:
        """Ids between the text and what is answered: question and cue."""
        return (*self.question, *self.cue)

    def reserve(self, positions: int) -> None:
        """Positions that a method takes, on either side."""
        self.room -= positions
        if self.writes is not None:
            self.writes -= positions

    def fitted(self, values: dict[str, Any], where: str, longest: int, limit: str) -> tuple[Ids, Ids, bool]:
        """A row's text beside an answer of up to `longest` tokens. Too long a text is truncated, never the template.

        Args:
            limit: what sets the answer's length, for the error.

        Returns:
            its ids, before which of them its slots stand, and whether it was cut.

        Raises:
            DataError: the template alone leaves no room for a text, or a decoder none for the answer.
        """
        read = self.prompter.row(self.task.shown(values), where)
        if self.writes is not None and longest > self.writes:
            raise DataError(
                f"{where}: an answer may have {longest} tokens, this base's decoder has room for {self.writes}; shorten it, or "
                "lower generation.max_new_tokens"
            )
        room = self.room - (longest if self.writes is None else 0)
        if room < 1:
            raise DataError(
                f"{where}: the template, its demonstrations and the prompt leave no room for the text beside {limit} "
                f"({1 - room} tokens too many for this base); shorten them, or the answers"
            )
        room = min(room, self.task.spec.max_text_tokens or room)
        truncated = len(read.ids) > room
        self.cut += truncated
        kept = read.ids[-room:] if self.prompter.keeps_end else read.ids[:room]
        return kept, tuple(min(hole, room) for hole in read.holes), truncated

    def answer(self, word: str) -> Ids:
        """Ids of an answer's text by itself."""
        ids = self._answers.get(word)
        if ids is None:
            ids = self.prompter.answer(word, self.writes is None)
            if word in self._answers:
                self._answers[word] = ids
        return ids
