"""An extractor: the words of a text that answer a question, or that a user wants out of it."""

from __future__ import annotations

from typing import Any, ClassVar

from ..errors import InputError
from ..tasks import Task
from ..tasks.proposed import Kind
from .generator import PromptGenerator
from .inputs import TEXT, Table
from .reading import Reads

CONTEXT = "context"
_ALONE = "Give the words of the text that are asked for."


class PromptExtractor(PromptGenerator):
    """Find the words of a text that answer a question, with a prompt that is learned on a frozen base.

    X is a table with a text and a question in each row, or a list of texts that all have the same question.

    In y each row has its answer: a text, or a list of texts that are all right. Answers stand in the row's text to the
    letter.

    Args:
        context: the column of the text to look in; None: `context`, else `text`, else the last one.
        base, method, instruction, lr, epochs, seed, dev, verbose: see `PromptClassifier`.
    """

    kind: ClassVar[Kind] = "span"
    _field: ClassVar[str] = "answers"

    def __init__(
        self,
        base: Any = "auto",
        method: Any = "auto",
        *,
        context: str | None = None,
        instruction: str | None = None,
        lr: float | None = None,
        epochs: int | None = None,
        seed: int = 0,
        dev: Any = "auto",
        verbose: Any = "auto",
    ) -> None:
        super().__init__(
            base,
            method,
            instruction=instruction,
            lr=lr,
            epochs=epochs,
            seed=seed,
            dev=dev,
            verbose=verbose,
        )
        self.context = context

    def _reading(self, table: Table) -> Reads:
        """The columns, of which the text to look in is the field `context`."""
        reads = Reads.of_table(table)
        columns = list(reads.fields)
        if reads.texts:
            return Reads({TEXT: CONTEXT}, True, reads.named)
        if self.context is not None and self.context not in columns:
            raise InputError(
                f"context is {self.context!r}, X has columns {', '.join(map(repr, columns))}; name one of them"
            )
        column = self.context or next((name for name in (CONTEXT, TEXT) if name in columns), columns[-1])
        others = {name: f"{field}_" if field == CONTEXT else field for name, field in reads.fields.items()}
        return Reads({**others, column: CONTEXT}, False, reads.named)

    def _proposed(self, reads: Reads, answers: list[Any]) -> Task:
        settings = self._settings(reads)
        if len(reads.fields) == 1 and self.instruction is None:
            settings["template"]["instruction"] = f"{_ALONE}\n\n"
        return Task.load(settings)
