"""What a run gives to whoever called it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..answers import Evaluation
from ..artifact import Artifact, load
from ..findings import Finding
from ..html import summary_html
from ..metrics import Estimate
from ..prepared import Prepared
from ..runtime import Prediction, Runtime
from ..types import Progress, ignore_progress
from .saving import save


@dataclass
class Result:
    """What a run gives.

    Attributes:
        metrics: by split (`dev`, and `test` if it was asked for).
        artifact: the folder, if `out` was given.
        seconds: `encode`, `train` and `evaluate`; `train` with the steps of earlier calls from which the run went on.
        parameters: trained numbers.
        truncated: rows whose text was cut to fit.
        findings: of the checks before and after training.
        recorded: metrics of earlier calls, on splits that this call did not measure.
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
    _runtime: Runtime | None = field(default=None, init=False, repr=False, compare=False)

    def as_artifact(self) -> Artifact:
        """The artifact as `load` gives it, also of a run that left no folder.

        Raises:
            ArtifactError: NaN in a tensor.
        """
        if self.artifact is not None:
            return load(self.artifact)
        with TemporaryDirectory() as folder:
            return replace(self.save(Path(folder) / "artifact"), path=None)

    def save(self, folder: str | Path) -> Artifact:
        """Write the artifact into a folder.

        Raises:
            ArtifactError: NaN in a tensor, or the folder holds something else.
        """
        return save(self, Path(folder), self.settings or None)

    def summary(self) -> dict[str, str]:
        """What was learned from how many rows, and how well, for people."""
        ready = self.prepared
        found = {
            "method": ready.method.spec.name,
            "base": ready.base.name,
            "learned from": f"{len(ready.splits['train'])} rows",
        }
        for name, evaluation in self.metrics.items():
            estimate = evaluation.estimate
            found[name] = f"{estimate.metric} {estimate} on {estimate.rows} rows"
        if self.truncated:
            found["cut"] = f"{self.truncated} texts that were too long"
        return found

    def _repr_html_(self) -> str:
        seconds = ", ".join(f"{what} {value:.1f} s" for what, value in self.seconds.items())
        held = {
            "task": self.prepared.task.name,
            **self.summary(),
            "parameters": f"{self.parameters:,}",
            "seconds": seconds,
        }
        return summary_html(held | ({"artifact": self.artifact} if self.artifact else {}))

    def predict(self, rows: Any, progress: Progress = ignore_progress) -> list[Prediction]:
        """Answer rows with what was learned; see `Runtime.predict`."""
        if self._runtime is None:
            self._runtime = Runtime(self.prepared.base)
            self._runtime.add("result", self)
        return self._runtime.predict(rows, "result", progress)

    def as_dict(self) -> dict[str, Any]:
        """Metrics (those of earlier calls included), times and sizes, as written to JSON."""
        now = {name: found.estimate for name, found in self.metrics.items()}
        return {
            "metrics": {name: one.as_dict() for name, one in {**self.recorded, **now}.items()},
            "parameters": self.parameters,
            "best_step": self.best_step,
            "truncated": self.truncated,
            "seconds": self.seconds,
            "findings": [finding.as_dict() for finding in self.findings if finding.level != "ok"],
            "artifact": None if self.artifact is None else str(self.artifact),
        }
