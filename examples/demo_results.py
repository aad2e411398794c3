"""What the demo has measured: how it is shown, and kept for the next call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import softprompt as sp
from softprompt.benchmarks.compare.statistics import compare_all
from softprompt.errors import SoftpromptError
from softprompt.metrics import Estimate
from softprompt.storage import write_json

HEADER = f"{'':<17}{'accuracy':>9}  {'95 % interval':<13} {'training':>8}  {'learned':>11}  {'to keep':>7}"


@dataclass(frozen=True)
class Measured:
    """One way of prompting, tested.

    Attributes:
        way: its title.
        hits: 1 for each test row that was answered rightly, else 0.
        seconds: of training, with the texts' encoding and evaluations on dev, without testing; None where nothing is trained.
        parameters: numbers that are learned.
        size: bytes to keep for use.
        artifact: digest of what was saved; empty where nothing was.
    """

    way: str
    estimate: Estimate
    hits: list[int]
    seconds: float | None
    parameters: int
    size: int
    artifact: str

    def line(self) -> str:
        """A line under `HEADER`."""
        low, high = self.estimate.interval
        interval = f"{low:.1%} to {high:.1%}".replace("%", "")
        return (
            f"{self.way:<17}{100 * self.estimate.value:>7.1f} %  {interval:<13} {duration(self.seconds):>8}  "
            f"{self.parameters:>11,}  {size(self.size):>7}"
        )


def duration(seconds: float | None) -> str:
    """For people; a dash where nothing is trained."""
    return "–" if seconds is None else f"{seconds:.0f} s"


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def differences(results: Sequence[Measured], reference: str) -> list[str]:
    """Each way that learns against the reference on the same rows, in a sentence."""
    scores = {one.way: np.array([one.hits]) for one in results if one.parameters}
    return [
        f"{found.one} minus {found.other}, row by row: {_points(found.difference)} points, 95 % interval "
        f"{_points(found.interval[0])} to {_points(found.interval[1])}"
        for found in compare_all(scores, reference, margin=0.02, scale=100)
    ]


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}".replace("-", "−")


class Store:
    """Measurements of earlier calls, in one JSON file.

    Args:
        fresh: take none of them.
    """

    def __init__(self, file: Path, fresh: bool) -> None:
        self._file = file
        self._records: dict[str, Any] = {}
        if not fresh and file.is_file():
            try:
                self._records = dict(json.loads(file.read_bytes()))
            except (OSError, ValueError, TypeError):
                self._records = {}  # a damaged file costs a training, no more

    def get(self, name: str, settings: str, folder: Path | None) -> Measured | None:
        """What was measured with the same settings, if what was saved then is still there.

        Args:
            settings: digest of all that the result depends on.
            folder: that holds what was saved; None where nothing was.
        """
        try:
            record = self._records[name]
            if record["settings"] != settings:
                return None
            values = {**record["measured"], "estimate": Estimate.from_dict(record["measured"]["estimate"])}
            measured = Measured(**values)
        except (KeyError, TypeError, ValueError):
            return None
        try:
            same = folder is None or sp.load(folder).digest == measured.artifact
        except SoftpromptError:
            return None
        return measured if same else None

    def put(self, name: str, settings: str, measured: Measured) -> None:
        """Keep a measurement for the next call."""
        values = {**asdict(measured), "estimate": measured.estimate.as_dict()}
        self._records[name] = {"settings": settings, "measured": values}
        write_json(self._file, self._records)
