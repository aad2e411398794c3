"""`softprompt doctor`: is this run, or this artifact, what it seems to be? Without one: what does it run on?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ..errors import visible_controls
from .app import app
from .console import base_of, out, progress, run_of
from .machine import tell_machine
from .options import Json, from_hub
from .outputs import files_of, refuse_replacing, tell_json

if TYPE_CHECKING:
    from ..doctor import Case
    from ..types import Progress

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "bold red"), "skipped": ("–", "dim")}


@app.command(
    "doctor",
    epilog="Examples: `softprompt doctor`, `softprompt doctor examples/movies.yaml`, "
    "`softprompt doctor examples/movies.yaml method=soft "
    "train.lr=0.1`, `softprompt doctor runs/movies --full --json doctor.json`",
)
def doctor_verb(
    target: Annotated[
        Path | None,
        typer.Argument(
            callback=from_hub,
            help="Run file (before training), folder of a run, artifact or hub:OWNER/NAME. Without one: versions and machine.",
        ),
    ] = None,
    settings: Annotated[list[str] | None, typer.Argument(help="key=value overrides of a run file.")] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Labelled rows to check on.")] = 16,
    full: Annotated[
        bool, typer.Option("--full", help="Also evaluate dev again and compare with the recorded metrics.")
    ] = False,
    document: Json = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Base of an artifact (default: the one it was trained on).")
    ] = None,
) -> None:
    """Check that the learned prompt acts, can learn, and is scored at the right tokens. Exit code 2 if anything is wrong.

    Without a target it shows what a bug report needs: versions, processor, memory, GPU and cache.
    """
    from ..doctor import Finding, examine
    from ..errors import ArtifactError, ConfigError, DataError

    refuse_replacing({"--json": document})
    if target is None:
        if full or base is not None:
            raise ConfigError("--full and --base need a run file, a run's folder or an artifact; name one")
        tell_machine(document)
        return
    with progress() as show:
        try:
            case = replace(_case(target, settings or [], rows, base, document, show), full=full)
            found = examine(case, progress=show)
        except ArtifactError as error:
            found = [Finding("artifact", "error", str(error))]
        except DataError as error:
            if not error.problems:
                raise
            found = [Finding("rows", "error", problem) for problem in error.problems]
    for finding in found:
        mark, style = _MARKS[finding.level]
        out.print(Text.assemble((mark, style), visible_controls(f" {finding}")))
    tell_json(document, [finding.as_dict() for finding in found])
    counts = {level: sum(finding.level == level for finding in found) for level in _MARKS}
    out.print(", ".join(f"{count} {level}" for level, count in counts.items() if count))
    if counts["error"]:
        raise typer.Exit(2)


def _case(target: Path, settings: list[str], rows: int, base: str | None, to: Path | None, show: Progress) -> Case:
    """A run file (or the folder of a run that has no artifact yet) is examined before training, all else as an artifact."""
    from ..artifact import load
    from ..doctor.cases import before_run, of_artifact
    from ..errors import ConfigError
    from ..run_reader import load_run

    if not target.exists():
        raise ConfigError(f"{target}: no such file or folder; name a run file, a run's folder or an artifact")
    file = target / "run.yaml" if target.is_dir() else target
    trained = target.is_dir() and ((target / "artifact").is_dir() or not file.is_file())
    if not trained:
        if base is not None:
            raise ConfigError("--base is for artifacts; say base=NAME to examine a run file with another base")
        spec = load_run(file, settings, whole=True)
        refuse_replacing({"--json": to}, [file, *files_of(spec)])
        return before_run(spec, rows, progress=show)
    if settings:
        raise ConfigError(f"{target} is trained already, so {settings[0]!r} cannot change it; give a run file")
    held, run = load(target), run_of(target)
    refuse_replacing({"--json": to}, files_of(run))
    return of_artifact(held, base_of(target, held.manifest.base.id, base).load(show), rows, run, show)
