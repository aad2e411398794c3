"""Data sets of texts and labels: fixed test rows, and for each seed a draw of labelled rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprompt.benchmarks.defaults.sets.cleaning import folded
from softprompt.config import suggest
from softprompt.data import Row, read_rows, split
from softprompt.data.duplicates import deduplicate
from softprompt.errors import DataError
from softprompt.storage import sha256_file
from softprompt.tasks import Task

TEST_SEED = 0
"""Draws the test rows, which are the same for all seeds and contenders."""
LEAST_TEST = 20
LEAST_OF_A_LABEL = 2
DEV_SHARE = 0.2


@dataclass(frozen=True)
class DataSet:
    """One CSV file with the columns `text` and `label`.

    Attributes:
        name: of the file, without its ending.
        labels: all that occur, K of them, in alphabetical order; log-probabilities are in this order.
        pool: rows that labelled rows are drawn from.
        test: rows that every run is measured on.
        digest: SHA-256 of the file.
    """

    name: str
    labels: tuple[str, ...]
    pool: tuple[Row, ...]
    test: tuple[Row, ...]
    digest: str

    def draw(self, count: int, seed: int) -> list[Row]:
        """The labelled rows of one seed, in the pool's proportions; each label at least twice where the pool has it twice.

        The rows that make up for a rare label take the place of rows of the commonest one.
        """
        parts = split(self.pool, {"train": count, "rest": None}, label_of, seed)
        drawn, rest = parts["train"], parts["rest"]
        counts = Counter(map(label_of, drawn))
        for label in self.labels:
            for row in [row for row in rest if label_of(row) == label][: max(0, LEAST_OF_A_LABEL - counts[label])]:
                commonest = max(sorted(counts), key=lambda name: counts[name])
                if counts[commonest] <= LEAST_OF_A_LABEL:
                    break  # there are as many labels as rows for them
                last = max(index for index, other in enumerate(drawn) if label_of(other) == commonest)
                drawn[last] = row
                counts.update({label: 1, commonest: -1})
        return drawn


def label_of(row: Row) -> str:
    """The row's label as the file has it."""
    return str(row.values["label"])


def texts_of(rows: Sequence[Row]) -> list[str]:
    """The texts of rows."""
    return [str(row.values["text"]) for row in rows]


def read_data_set(path: Path, rows: int, test: int) -> DataSet:
    """Read a CSV file and put its test rows aside.

    Args:
        rows: labelled rows that a seed draws; the test leaves so many.
        test: test rows at most.

    Raises:
        DataError: no such file; a row without text or label; a text that stands twice; one label only; too few rows.
    """
    every = read_rows(path, _unusable)
    _, again = deduplicate(every, lambda row: folded(str(row.values["text"])), label_of)
    if again:
        raise DataError(f"{path}: holds {again}; remove these, so that no test row is learned from")
    labels = tuple(sorted(set(map(label_of, every))))
    if len(labels) < 2:
        raise DataError(f"{path}: all rows have the label {labels[0]!r}; a classification takes at least two")
    count = min(test, len(every) - rows)
    if count < min(LEAST_TEST, test):
        raise DataError(
            f"{path}: has {len(every)} rows, too few for {rows} labelled rows and a test; make --rows smaller"
        )
    parts = split(every, {"test": count, "pool": None}, label_of, TEST_SEED)
    return DataSet(path.stem, labels, tuple(parts["pool"]), tuple(parts["test"]), sha256_file(path))


def _unusable(values: dict[str, Any]) -> str | None:
    for name in ("text", "label"):
        if not str(values.get(name) or "").strip():
            return f"has no {name}; expected the columns text and label"
    return None


def files_of(folder: Path, tasks: Sequence[str] = ()) -> list[Path]:
    """The CSV files of a folder by name, or those of these tasks.

    Raises:
        DataError: there are none, or not of such a task.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.csv"))}
    if not files:
        raise DataError(f"{folder}: holds no CSV file; expected one a data set, with the columns text and label")
    for task in tasks:
        if task not in files:
            raise DataError(f"{folder}: holds no {task}.csv{suggest(task, files)}")
    return [path for name, path in files.items() if not tasks or name in tasks]


def labelled_splits(task: Task, rows: Sequence[Row], seed: int) -> dict[str, list[Row]]:
    """Labelled rows divided into `train` and `dev` (20 %), stratified by label."""
    return split(rows, {"train": None, "dev": DEV_SHARE}, task.label, seed)
