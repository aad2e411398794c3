"""A results folder as tables: for each place and test a matrix of seeds by rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softprompt.benchmarks.compare.record import Measured, Place, Record, gold_of, read_all
from softprompt.errors import DataError


@dataclass(frozen=True)
class Tested:
    """Final runs of one place, tested on the same rows.

    Attributes:
        test: the test's task.
        records: done, one a seed, in the seeds' order.
        where, gold: of the rows [n].
        folds: each record tested other rows, those of its fold; together they are one test, as of one seed.
    """

    place: Place
    test: str
    records: list[Record]
    where: list[str]
    gold: Sequence[Any]
    folds: bool = False

    @property
    def measured(self) -> list[Measured]:
        """The test's measure of each seed."""
        return [record.tests[self.test] for record in self.records]

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return self.measured[0].metric

    @property
    def predicted(self) -> list[list[Any]]:
        """[seeds, n]; of folds [1, n]."""
        runs = [found.predicted or [] for found in self.measured]
        return [[answer for run in runs for answer in run]] if self.folds else runs

    @property
    def seeds(self) -> list[int]:
        """Of the runs [seeds]; of folds, which make one run together, 0."""
        return [0] if self.folds else [record.seed for record in self.records]

    @property
    def rows(self) -> list[str]:
        """Digests of the rows: what has equal ones was tested on the same rows."""
        digests = [found.digest for found in self.measured]
        return digests if self.folds else digests[:1]


@dataclass(frozen=True)
class Results:
    """All records of a folder.

    Attributes:
        suite: `suite.json`: the resolved suite with its name, title, notes, command, `margin` and `reference` (see suite.py).
    """

    folder: Path
    suite: dict[str, Any]
    records: list[Record] = field(default_factory=list)

    @staticmethod
    def load(folder: Path) -> Results:
        """Read a results folder.

        Raises:
            DataError: it is none.
        """
        if not (suite := suite_in(folder)):
            raise DataError(f"{folder}: is no results folder (it has no suite.json); give the --out of `bench compare`")
        return Results(folder, suite, list(read_all(folder).values()))

    @property
    def failed(self) -> list[Record]:
        """Runs that failed."""
        return [record for record in self.records if record.status == "failed"]

    @property
    def trials(self) -> list[Record]:
        """Runs that chose."""
        return [record for record in self.records if record.stage == "trial" and record.status == "done"]

    def tested(self) -> list[Tested]:
        """Final runs by place and test; seeds whose rows are others than the first seed's are refused.

        Where a search that goes on has come to another rate, those of the newest one only: a seed counts once.

        Raises:
            DataError: seeds of one place were tested on different rows.
        """
        groups: dict[tuple[str, str], list[Record]] = {}
        for record in self.records:
            if record.stage == "final" and record.status == "done":
                for test in record.tests:
                    groups.setdefault((record.place.model_dump_json(), test), []).append(record)
        found = []
        for (_, test), members in groups.items():
            newest = max(members, key=lambda record: record.when)
            records = [record for record in members if _of(record) == _of(newest)]
            records.sort(key=lambda record: record.seed)
            digests = list(dict.fromkeys(record.tests[test].digest for record in records))
            folds = (self.suite.get("suite") or {}).get("draws") == "folds"
            if len(digests) > 1 and not folds:
                raise DataError(f"{records[0].place.contender}: its seeds were tested on different rows of {test}")
            where: list[str] = []
            gold: list[Any] = []
            for digest in digests:
                some, right = gold_of(self.folder, digest)
                where += some
                gold += right
            found.append(Tested(records[0].place, test, records, where, gold, folds))
        return found


def _of(record: Record) -> tuple[str | None, float | None]:
    return record.digests.get("settings"), record.lr


def suite_in(folder: Path) -> dict[str, Any]:
    """What `suite.json` says; nothing of a folder without one.

    Raises:
        DataError: it cannot be read.
    """
    path = folder / "suite.json"
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); run the suite again") from None
