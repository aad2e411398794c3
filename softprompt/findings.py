"""What checks say of a run or an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .metrics import Estimate
from .tasks import Task
from .types import Example

Level = Literal["ok", "warning", "error", "skipped"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: its name.
        level: `skipped` where it does not apply; `what` then says why.
        what: what was found, with numbers, in one line.
        advice: what to do; empty where all is well.
    """

    check: str
    level: Level
    what: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.check}: {self.what}" + (f"; {self.advice}" if self.advice else "")

    def as_dict(self) -> dict[str, Any]:
        """As written to JSON and to the event log."""
        return asdict(self)


def above_majority(task: Task, dev: Sequence[Example], estimate: Estimate) -> Finding:
    """Whether a metric on dev says that anything was learned."""
    least, who = task.floor(estimate.metric, [row.values for row in dev])
    what = f"dev {estimate.metric} {estimate} on {estimate.rows} rows; {who} has {least:.3f}"
    if estimate.interval[0] > least:
        return Finding("majority", "ok", what)
    return Finding(
        "majority",
        "warning",
        what,
        "nothing is shown to be learned: more dev rows, more steps, another train.lr or cue",
    )
