"""`softprompt eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import app
from .console import base_of, out, progress, run_of, tell_answers, tell_cut
from .options import ArtifactFolder, Dtype, Json, Quantization
from .outputs import behind_links, files_of, refuse_replacing, tell_json
from .reports import ReportFile, check_report, tell_report

if TYPE_CHECKING:
    from ..data import Row
    from ..tasks import Task


@app.command(
    "eval",
    epilog="Examples: `softprompt eval runs/movies`, `softprompt eval runs/movies --report page.html`, "
    "`softprompt eval runs/movies --data mine.jsonl --json score.json --outcomes rows.jsonl`",
)
def eval_verb(
    artifact: ArtifactFolder,
    data: Annotated[
        str | None, typer.Option("--data", help="Labelled rows: file or catalogue name. Default: the task's own split.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Which of the task's own splits.")] = "test",
    outcomes: Annotated[
        Path | None,
        typer.Option("--outcomes", callback=behind_links, help="Write each row's answer, in the form of its ending."),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Base to use (default: the one it was trained on).")
    ] = None,
    dtype: Dtype = None,
    quantization: Quantization = None,
    report: ReportFile = None,
    document: Json = None,
) -> None:
    """Measure an artifact: the task's metric with its 95 % interval."""
    from ..artifact import load
    from ..data.writers import check_output, write_rows
    from ..runtime import Runtime

    if outcomes is not None:
        check_output(outcomes)
    check_report(report)
    read = [data] if data is not None else files_of(run_of(artifact))
    refuse_replacing({"--json": document, "--outcomes": outcomes, "--report": report}, read)
    held = load(artifact)
    with progress() as show:
        runtime = Runtime(base_of(artifact, held.manifest.base.id, base, dtype, quantization).load(show))
        runtime.add("artifact", artifact)
        task = runtime.task("artifact")
        if data is None:
            rows = _own_rows(artifact, task, split)
        else:
            rows = task.read(str(Path(data).absolute()) if Path(data).exists() else data, show)
        found = runtime.evaluate("artifact", rows, show)
    form = runtime.get("artifact").form
    tell_cut(form.bound)
    tell_answers(found, form)
    told = found.estimate.as_dict()
    out.print(f"{found.estimate.metric} {found.estimate} on {found.estimate.rows} rows")
    if report is not None:
        from ..reporting import report_of

        method, base_id = held.manifest.method["name"], held.manifest.base.id
        source = Path(data).name if data is not None else f"{split} rows"
        more = report_of(f"{task.name}: {method} on {base_id}, {source}", task, found, rows)
        tell_report(more, report)
        told["report"] = more.as_dict()
    if outcomes is not None:
        write_rows(outcomes, [item.as_dict() for item in found.outcomes])
    tell_json(document, told)


def _own_rows(artifact: Path, task: Task, split: str) -> list[Row]:
    """The rows of a split of the task's own data: as the run's folder names it, or from the catalogue.

    Nothing else that an artifact names is opened: it may come from a stranger.
    """
    from ..data import CATALOGUE
    from ..errors import ConfigError, DataError
    from ..tasks import Task

    if (run := run_of(artifact)) is not None:
        task = Task.load(run.task, task.rules)
    elif task.spec.data.source not in CATALOGUE:
        raise ConfigError(f"{artifact}: the artifact does not hold its data; name labelled rows with --data")
    try:
        splits = task.load_data()
    except DataError as error:
        if error.problems:
            raise
        raise DataError(f"{error}; name labelled rows with --data") from None
    if not splits.get(split):
        there = ", ".join(name for name, rows in splits.items() if rows)
        raise ConfigError(f"the task has no rows in split {split!r} (there are: {there})")
    return splits[split]
