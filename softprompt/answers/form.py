"""The contract of a way of answering: how a row becomes an example, what is learned from it, how it is answered.

A new way of answering is one file with an `AnswerForm` subclass and one line in `registry.py`, or an entry point in the group
`softprompt.answers`. A task type names its form, and the form of a head that reads its answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from .. import registry
from ..base import Base
from ..data import Row
from ..engine import Engine, EngineRow, Learned, Past, Reading, RowCache, left_behind
from ..engine.rows import Piece
from ..errors import DataError
from ..methods import Method
from ..tasks import BoundTask, Task
from ..types import Example, Ids, Progress, ignore_progress
from .earlier import earlier
from .outcome import Evaluation, Outcome

T = TypeVar("T", bound=Task)


@dataclass
class Prompt:
    """A method bound to a task and a base, with the engine that runs its plan and the form of its answers."""

    base: Base
    method: Method
    form: AnswerForm[Any]
    engine: Engine

    @property
    def bound(self) -> BoundTask:
        """The task with the base's tokenizer."""
        return self.form.bound

    @property
    def task(self) -> Task:
        """The task, with its demonstrations."""
        return self.form.bound.task


@dataclass
class Compiled(Prompt):
    """A prompt ready to serve: its K/V in front of the text, its pieces behind it, what its live tokens run through.

    Attributes:
        once: what its form computes once for all rows (see `AnswerForm.once`).
        reading: a text that was read before, which all rows begin with.
    """

    shared_prefix: Past | None
    middle: Mapping[str, Piece]
    live: Base
    once: Any
    reading: Reading | None = None

    def row(self, example: Example) -> EngineRow:
        """An example behind it, where rows of several prompts run together."""
        row = self.engine.row(example, self.shared_prefix, self.middle)
        if self.reading is None:
            return row
        return self.reading.behind(row, left_behind(self.engine, example, self.reading.text))

    @property
    def kept(self) -> RowCache | None:
        """Where what its rows have kept lies: what follows a text that was read before."""
        return None if self.reading is None else self.reading.following

    def size(self, example: Example) -> int:
        """Tokens that set an example's memory and time; a text that was read before lies there once for all its rows."""
        behind = self.method.length + len(self.bound.behind) + len(self.bound.tail)
        if self.reading is not None:
            return behind + len(example.text) - len(self.reading.text)
        return behind + len(self.bound.prefix_ids) + len(example.text)


class AnswerForm(ABC, Generic[T]):
    """One way of answering, for one task with its tokenizer.

    Attributes:
        reads_tokens: a head reads the state of every token of the text; else one state a row.
        mixes: rows of several prompts run in one batch on a causal base, as `Compiled.row` lays them out.
        needs_head: only a head can answer so, whatever words the base has.
        settles_on_dev: something is chosen on the answers to dev rows after training (see `settle_on_dev`).
        rate, epochs, word_dropout: how a head's method is trained by default: its own learning rate times `rate`, at
            least so many epochs, this fraction of the tokens hidden.
        bound: the task with the tokenizer.
        headed: a head reads the answers off the base's states; else the base's own words are the answers.
    """

    reads_tokens: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    needs_head: ClassVar[bool] = False
    settles_on_dev: ClassVar[bool] = False
    rate: ClassVar[float] = 1.0
    epochs: ClassVar[int] = 0
    word_dropout: ClassVar[float] = 0.0
    bound: BoundTask
    task: T

    def __init__(self, bound: BoundTask, headed: bool = False) -> None:
        self.bound, self.headed = bound, headed
        bound.form = self
        self.task = bound.task  # type: ignore[assignment]  # the task names its form

    @classmethod
    def of(cls, task: Task, tokenizer: Any, room: int, **how: Any) -> AnswerForm[T]:
        """The form of a task with a tokenizer, without a base; see `BoundTask`."""
        return cls(BoundTask(task, tokenizer, room, **how))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "bound" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return earlier(self, name)

    @classmethod
    @abstractmethod
    def head_size(cls, task: T) -> int:
        """Logits of a head that answers the task."""

    @classmethod
    def chained(cls, task: T) -> bool:
        """Whether a head of the task also learns which answer follows which."""
        return False

    @classmethod
    def check(cls, base: Base, task: T) -> None:
        """Check before anything runs that the base can answer in this form.

        Raises:
            ConfigError: the base cannot answer in this form; names what would work.
        """

    @abstractmethod
    def encode(self, values: dict[str, Any], where: str = "row") -> Example:
        """A row's fields as an example.

        Raises:
            DataError: it does not fit the base.
        """

    def encode_rows(self, rows: Sequence[Row]) -> list[Example]:
        """All rows as examples, each with its weight."""
        examples = [self.encode(row.values, row.where) for row in rows]
        pairs = zip(examples, rows, strict=True)
        return [example if row.weight == 1 else replace(example, weight=row.weight) for example, row in pairs]

    def answer(self, word: str) -> Ids:
        """Ids of an answer's text, as it is learned and scored."""
        return self.bound.answer(word)

    def lacking(self, example: Example) -> str | None:
        """What an example lacks to be learned from, or None."""
        return "the row has no label" if example.gold is None else None

    def spoken(self, ids: Ids) -> Ids:
        """An answer's ids without those that only mark its end."""
        return ids

    def logits(self, engine: Engine, rows: Sequence[Example], learned: Learned) -> tuple[Tensor, Tensor]:
        """Logits [A, V] at the right answers' positions, and their tokens [A]."""
        return engine.answers(rows, learned)

    def loss(self, engine: Engine, rows: Sequence[Example], learned: Learned) -> tuple[Tensor, int]:
        """What training minimises: Σ cross-entropy of the right answers, and the sum of the rows' `loss_weight`.

        Each row's cross-entropy is multiplied by its `weight`; the second number is not.
        """
        return engine.loss(rows, learned)

    def loss_weight(self, example: Example) -> int:
        """What a row counts for in the mean loss of a step: the tokens of its answer."""
        return len(example.answer)

    def step_weight(self, rows: Sequence[Example]) -> float:
        """By what the loss of a step is divided: the rows' `loss_weight`, each times its `weight`."""
        return sum(self.loss_weight(row) if row.weight == 1 else row.weight * self.loss_weight(row) for row in rows)

    @abstractmethod
    def predict(
        self, prompt: Prompt, rows: Sequence[Example], progress: Progress = ignore_progress, quick: bool = False
    ) -> list[Outcome]:
        """Answer every row, without gradients.

        Args:
            quick: leave out what takes much longer than a forward; the outcomes then say how likely the right answers are.
        """

    def quick_metric(self) -> str:
        """The metric over the outcomes of a quick `predict`."""
        return self.task.spec.metric

    def settle_on_dev(self, evaluation: Evaluation) -> Evaluation:
        """Choose on these answers what is left open until training has ended, and write it into the task. Returns the
        answers with it."""
        return evaluation

    def once(self, prompt: Prompt, learned: Learned) -> Any:
        """What is computed once for all rows that a prompt serves."""
        return None

    def together(self, prompt: Compiled) -> Hashable:
        """Rows of prompts that give the same may be served in one batch; by default those of the prompt itself."""
        return id(prompt)

    def serve(self, rows: Sequence[Example], prompts: Sequence[Compiled]) -> list[Outcome]:
        """Answer a batch, each row behind its own prompt; all of them give the same `together`."""
        return self.predict(prompts[0], rows)

    def stream(self, prompt: Compiled, row: Example, tell: Callable[[str], object]) -> Outcome:
        """Answer one row and pass on its text as it is generated.

        Raises:
            DataError: see `unstreamable`.
        """
        raise DataError(f"the task {self.unstreamable}")

    @property
    def unstreamable(self) -> str:
        """Why an answer cannot be streamed, and what to do; empty if it can."""
        return f"chooses its answers (type {self.task.spec.type!r}); ask predict"

    def remarks(self, rows: Sequence[Example]) -> list[tuple[str, str]]:
        """What is odd about the right answers of these rows, and what to do; doctor shows it as a warning."""
        return []

    def notices(self, texts: Sequence[str], cut: Sequence[bool], tokens: Sequence[int] = ()) -> list[str]:
        """What a person should know about given answers, a line each.

        Args:
            texts: the answers.
            cut: whether each was cut at its longest length.
            tokens: how many each right answer has, where it is known.
        """
        return []


def find_form(name: str) -> type[AnswerForm[Any]]:
    """The form of a name (`softprompt.answers` in the registry)."""
    found: type[AnswerForm[Any]] = registry.find("softprompt.answers", name)
    return found


@torch.no_grad()
def frozen_learned(method: Method) -> Learned:
    """What a method brings, without gradients."""
    return method.learned()
