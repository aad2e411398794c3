"""What came of `softprompt try`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softprompt.benchmarks.ways.table import Curve, Line


@dataclass(frozen=True)
class Tried:
    """What came of it.

    Attributes:
        rows, of: that were tried, of how many in the file.
        lines: the table, best first.
        chosen: the line that is recommended.
        advice: sentences; the rule by which it is chosen is the last.
        left_out: what did not fit or failed, a line each.
        code: lines of scikit-learn where that is recommended.
        file, command: the winner's run file, and what trains it; None where it has none.
    """

    data: Path
    folder: Path
    labels: dict[str, int]
    metric: str
    rows: int
    of: int
    folds: int
    lines: list[Line]
    curves: list[Curve]
    chosen: Line
    advice: list[str]
    left_out: list[str] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    file: Path | None = None
    command: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As written to JSON."""
        return {
            "data": self.data,
            "rows": self.rows,
            "of": self.of,
            "folds": self.folds,
            "metric": self.metric,
            "ways": [_as_dict(line) for line in self.lines],
            "curves": {curve.title: [_as_dict(line) for line in curve.points] for curve in self.curves},
            "recommended": self.chosen.title,
            "advice": self.advice,
            "left_out": self.left_out,
            "code": self.code,
            "file": self.file,
            "next": self.command,
        }


def _as_dict(line: Line) -> dict[str, Any]:
    to_best = line.to_best
    return {
        "name": line.title,
        "base": line.way.base,
        "labels": line.labels,
        "folds": line.folds,
        "value": line.value,
        "interval": line.interval,
        "loss": line.loss,
        "train_seconds": line.train_seconds,
        "predict_seconds_per_1000": line.predict_seconds,
        "bytes": line.stored,
        "to_best": None if to_best is None else {"value": to_best.value, "interval": to_best.interval},
    }
