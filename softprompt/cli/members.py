"""Artifacts that are joined, as an ensemble or an average: read, measured on the same rows, and told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import out
from .evaluate import own_rows
from .gains import member_measures, tell_gain
from .options import from_hub
from .outputs import refuse_replacing
from .serving import manifests_of, runtime_for

if TYPE_CHECKING:
    from ..answers import Evaluation
    from ..artifact import Manifest
    from ..data import Row
    from ..runtime import Runtime
    from ..tasks import Task
    from ..types import Progress

Folders = Annotated[
    list[Path],
    typer.Argument(callback=from_hub, help="Two or more artifacts, runs or hub:OWNER/NAME, of one task."),
]
Weights = Annotated[
    str | None, typer.Option("--weights", help="What each one counts, e.g. 2,1 for two; they are divided by their sum.")
]


def weights_of(text: str | None, count: int) -> list[float] | None:
    """Weights as the user writes them, divided by their sum; None where there are none.

    Raises:
        ConfigError: other than a number ≥ 0 for each, or all are 0.
    """
    import math

    from ..errors import ConfigError

    if text is None:
        return None
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    total = sum(found)
    if len(found) != count or not all(0 <= one < math.inf for one in found) or not 0 < total < math.inf:
        raise ConfigError(
            f"--weights is {text[:60]!r}; write {count} numbers ≥ 0 with commas, e.g. {','.join(['1'] * count)}"
        )
    return [one / total for one in found]


@dataclass(frozen=True)
class Members:
    """Artifacts by their place (`1`, `2`, …), whose folders are the names that people see."""

    folders: dict[str, Path]
    held: dict[str, dict[Path, Manifest]]

    @staticmethod
    def read(artifacts: Sequence[Path], what: str, document: Path | None, data: str | None) -> Members:
        """Of the folders that the user names.

        Args:
            what: is made of them, for messages.
            document, data: what is written and read beside them.

        Raises:
            ConfigError: fewer than two, or one is an ensemble.
            ArtifactError: one is damaged.
        """
        from ..errors import ConfigError

        refuse_replacing({"--json": document}, [data] if data is not None else [])
        if len(artifacts) < 2:
            raise ConfigError(f"{what} has at least two members; name two artifacts")
        folders = {f"{place}": folder for place, folder in enumerate(artifacts, 1)}
        held = {name: manifests_of(folder) for name, folder in folders.items()}
        if nested := next((name for name, own in held.items() if len(own) > 1), None):
            raise ConfigError(f"{folders[nested]}: is an ensemble itself; name its members' folders")
        return Members(folders, held)

    @property
    def manifests(self) -> dict[str, Manifest]:
        """Each one's by its folder."""
        return {str(self.folders[name]): next(iter(own.values())) for name, own in self.held.items()}

    def measured(
        self, data: str | None, base: list[str] | None, dtype: str | None, quantization: str | None, show: Progress
    ) -> tuple[Runtime, list[Row], list[Evaluation]]:
        """A runtime with all of them, the rows (dev of the first one's task unless `data` names some), and what each answers.

        Raises:
            ConfigError, DataError: no base, or no rows.
        """
        runtime = runtime_for(self.folders, self.held, base or [], dtype, quantization, show)
        rows = _rows(self.folders["1"], runtime.task("1"), data, show)
        return runtime, rows, [runtime.evaluate(name, rows, show) for name in self.folders]

    def tell(
        self, weights: Sequence[float], found: Sequence[Evaluation], what: str, together: Evaluation
    ) -> dict[str, Any]:
        """Say how good each one is, and what is made of them, with its gain; the same for `--json`."""
        names = [str(folder) for folder in self.folders.values()]
        for name, weight, one in zip(names, weights, found, strict=True):
            out.print(_line(name, one, f", weight {weight:.3f}"))
        out.print(_line(what, together, ""))
        return tell_gain(together, found, names) | {
            "members": [
                {"artifact": name, "weight": weight, **member_measures(one)}
                for name, weight, one in zip(names, weights, found, strict=True)
            ]
        }


def _rows(first: Path, task: Task, data: str | None, show: Progress) -> list[Row]:
    if data is None:
        return own_rows(first, task, "dev")
    return task.read(str(Path(data).absolute()) if Path(data).exists() else data, show)


def _line(name: str, found: Evaluation, more: str) -> str:
    return f"{name}: dev {found.estimate.metric} {found.estimate}, log loss {found.nll:.3f}{more}"
