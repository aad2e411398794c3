"""What a run gives to whoever called it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..answers import Evaluation
from ..findings import Finding
from ..metrics import Estimate
from ..prepared import Prepared


@dataclass
class Result:
    """What a run gives.

    Attributes:
        metrics: by split (`dev`, and `test` if it was asked for).
        artifact: the folder, if `out` was given.
        seconds: `encode`, `train` and `evaluate`.
        parameters: trained numbers.
        truncated: rows whose text was cut to fit.
        findings: of the checks before and after training.
        recorded: what earlier calls have measured on splits that this one was not asked for.
        settings: all that decides the result.
    """

    prepared: Prepared
    metrics: dict[str, Evaluation]
    artifact: Path | None
    seconds: dict[str, float]
    parameters: int
    best_step: int
    truncated: int
    events: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    recorded: dict[str, Estimate] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
