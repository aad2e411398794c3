"""A writer of short texts, learned from texts and their answers."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..answers import Outcome
from ..data import Row
from ..metrics import estimate
from ..tasks import Task
from ..tasks.proposed import Kind
from ..values import is_blank, kind
from .base import PromptEstimator, own_errors
from .inputs import Table, listed, read_table, read_weights, refuse_all, same_length
from .reading import Reads
from .shown import watching

_LONGEST = 512  # tokens that an answer may have


class PromptGenerator(PromptEstimator):
    """Write an answer to each row, with a prompt that is learned on a frozen base.

    X is as for `PromptClassifier`. y holds the answer of each row: a text, or a list of texts that are all right, of which the
    first is learned.

    Args:
        base, method, instruction, lr, epochs, seed, dev, verbose: see `PromptClassifier`.

    Example:
        >>> writer = PromptGenerator(instruction="Name the capital.").fit(["Peru", "Mali"], ["Lima", "Bamako"])
        >>> writer.predict(["Cuba"]).shape
        (1,)
    """

    kind: ClassVar[Kind] = "generation"
    _field: ClassVar[str] = "answer"

    def __init__(
        self,
        base: Any = "auto",
        method: Any = "auto",
        *,
        instruction: str | None = None,
        lr: float | None = None,
        epochs: int | None = None,
        seed: int = 0,
        dev: Any = "auto",
        verbose: Any = "auto",
    ) -> None:
        self.base = base
        self.method = method
        self.instruction = instruction
        self.lr = lr
        self.epochs = epochs
        self.seed = seed
        self.dev = dev
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Learn from rows and their answers.

        Args:
            sample_weight: [n] factors of the rows' losses.

        Raises:
            InputError: X, y or a setting that cannot be used, or a base that is not there (a ValueError as well).
            TrainingError: a loss that is not finite.
        """
        with own_errors():
            reads, values = self._first(X)
            answers = self._read_answers(y)
            same_length(values, answers, type(self).__name__)
            weights = read_weights(sample_weight, None, None, len(answers)).tolist()
            task = self._proposed(reads, answers)
            rows = self._rows(values, answers, weights)
            dev = self._dev_rows(reads)
            refuse_all(_unfit(task, [*rows, *(dev or ())]), len(rows), "rows")
            fitted, summary = self._learn(task, rows, dev)
        self.summary_ = summary
        self._take(fitted, reads)
        return self

    def predict(self, X: Any) -> Any:
        """The answer to each row, [n] texts.

        Raises:
            NotFittedError: nothing was learned yet.
            InputError: X cannot be read.
        """
        with own_errors():
            _, outcomes = self._answered(X)
        found = np.empty(len(outcomes), object)
        found[:] = [outcome.predicted for outcome in outcomes]
        return found

    def score(self, X: Any, y: Any) -> float:
        """The task's metric of the answers, between 0 and 1 (see docs/metrics.md).

        Raises:
            NotFittedError: nothing was learned yet.
            InputError: X or y cannot be read.
        """
        with own_errors():
            task = self._known().task
            answers = self._read_answers(y)
            asked, outcomes = self._answered(X)
            same_length(outcomes, answers, type(self).__name__)
            labelled = self._rows([row.values for row in asked], answers, [1.0] * len(asked))
            refuse_all(_unfit(task, labelled), len(labelled), "rows")
            golds = [task.gold(row.values) for row in labelled]
            return estimate(task.spec.metric, golds, [outcome.predicted for outcome in outcomes]).value

    def _first(self, X: Any) -> tuple[Reads, list[dict[str, Any]]]:
        """What is to be read of rows like these, and the fields of each."""
        who = type(self).__name__
        table = read_table(X, who)
        reads = self._reading(table)
        return reads, reads.rows(table, who)

    def _reading(self, table: Table) -> Reads:
        return Reads.of_table(table)

    def _proposed(self, reads: Reads, answers: list[Any]) -> Task:
        """The task of these rows: answers of several lines are written to their end."""
        settings = self._settings(reads)
        texts = [text for answer in answers for text in answer]
        settings["generation"]["stop"] = [] if any("\n" in text.strip() for text in texts) else ["\n"]
        longest = max(map(len, texts))  # in characters, which are no fewer than tokens but in few languages
        settings["generation"]["max_new_tokens"] = min(_LONGEST, max(64, longest // 2))
        return Task.load(settings)

    def _read_answers(self, y: Any, name: str = "y") -> list[list[str]]:
        """Of each row all answers that are right.

        Raises:
            InputError: an answer that is no text.
        """
        answers = [value if isinstance(value, (list, tuple)) else [value] for value in listed(y, type(self).__name__)]
        problems = []
        for place, texts in enumerate(answers):
            bad = next((text for text in texts or [None] if not isinstance(text, str) or is_blank(text)), "")
            if bad != "" or not texts:
                what = "an empty text" if isinstance(bad, str) else kind(bad)
                problems.append(f"{name}[{place}] is {what}; expected the text of the answer")
        refuse_all(problems, len(answers), "answers")
        return [list(texts) for texts in answers]

    def _rows(
        self, values: list[dict[str, Any]], answers: list[Any], weights: list[float], name: str = "X"
    ) -> list[Row]:
        together = zip(values, answers, weights, strict=True)
        return [
            Row({**row, self._field: answer}, f"{name}[{place}]", weight)
            for place, (row, answer, weight) in enumerate(together)
        ]

    def _dev_rows(self, reads: Reads) -> list[Row] | None:
        """Dev rows that were given; None where some of the others are to be."""
        if (given := self._given_dev()) is None:
            return None
        values = self._values(given[0], reads, "X_dev")
        answers = self._read_answers(given[1], "y_dev")
        same_length(values, answers, type(self).__name__)
        return self._rows(values, answers, [1.0] * len(answers), "X_dev")

    def _answered(self, X: Any) -> tuple[list[Row], list[Outcome]]:
        """The rows that are asked, and what came of each."""
        fitted = self._known()
        asked = self._asked(X)
        with watching(self.verbose) as (progress, _):
            return asked, fitted.outcomes(asked, progress)


def _unfit(task: Task, rows: list[Row]) -> list[str]:
    """Rows that cannot be learned from, and why."""
    return [f"{row.where}: {problem}" for row in rows if (problem := task.check_row(row.values)) is not None]
