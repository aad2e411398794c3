"""The row that must be beaten: always the most frequent answer of the training rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from softprompt.answers import Outcome, summarize
from softprompt.benchmarks.compare.record import Record, Rows, keep_tests
from softprompt.data import Row
from softprompt.errors import DataError
from softprompt.metrics import metric_of
from softprompt.tasks import Task


def run_majority(
    task: Task, rows: Mapping[str, Sequence[Row]], tests: Mapping[str, Sequence[Row]], record: Record
) -> dict[str, Rows]:
    """Answer all test rows alike, or all their words. Of equally frequent answers the first in the alphabet is taken.

    Raises:
        DataError: no training row has an answer.
    """
    answer = commonest(task, rows["train"])
    found = {
        name: summarize(task.spec.metric, [_outcome(task, row, answer) for row in part]) for name, part in tests.items()
    }
    record.trained = record.stored = record.artifact_bytes = 0
    record.config = {"task": task.spec.model_dump(mode="json", exclude_none=True), "answer": answer}
    return keep_tests(record, found)


def _outcome(task: Task, row: Row, answer: str) -> Outcome:
    gold = task.gold(row.values)
    return Outcome(row.where, gold, [answer] * len(gold) if _takes_tags(task) else answer)


def _takes_tags(task: Task) -> bool:
    return metric_of(task.spec.metric).takes == "tags"


def commonest(task: Task, rows: Sequence[Row]) -> str:
    """The most frequent right answer; of several right texts of one row each counts, of tags that of each word.

    Raises:
        DataError: no row has one.
    """
    counts: Counter[str] = Counter()
    for row in rows:
        gold = task.gold(row.values)
        several = gold or []
        each = several if _takes_tags(task) else list(dict.fromkeys(several))
        counts.update([gold] if isinstance(gold, str) else each)
    if not counts:
        raise DataError(f"{task.name}: no training row has an answer")
    return min(counts, key=lambda text: (-counts[text], text))
