"""`softprompt eval`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import app
from .console import err, out, progress, run_of, tell_answers, tell_cut
from .gains import member_measures, tell_gain
from .options import ArtifactFolder, Bases, Dtype, Json, Quantization
from .outputs import behind_links, files_of, refuse_replacing, tell_json
from .reports import ReportFile, check_report, tell_report
from .serving import manifests_of, runtime_for

if TYPE_CHECKING:
    from ..answers import Evaluation
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
        typer.Option(
            "--outcomes",
            callback=behind_links,
            help="Write each row's answer to this file; its ending sets the format.",
        ),
    ] = None,
    base: Bases = None,
    dtype: Dtype = None,
    quantization: Quantization = None,
    report: ReportFile = None,
    document: Json = None,
) -> None:
    """Measure an artifact or an ensemble: the task's metric with its 95 % interval.

    Of an ensemble also each member's metric, and the gain over the best of them. That is the best one on these rows, so the
    gain is rather too small than too large. The gain's interval covers the choice of rows, and no other training.
    """
    from ..data.writers import check_output, write_rows

    if outcomes is not None:
        check_output(outcomes)
    check_report(report)
    read = [data] if data is not None else files_of(run_of(artifact))
    refuse_replacing({"--json": document, "--outcomes": outcomes, "--report": report}, read)
    held = manifests_of(artifact)
    with progress() as show:
        runtime = runtime_for({"artifact": artifact}, {"artifact": held}, base or [], dtype, quantization, show)
        task = runtime.task("artifact")
        if data is None:
            rows = own_rows(artifact, task, split)
        else:
            rows = task.read(str(Path(data).absolute()) if Path(data).exists() else data, show)
            for line in task.notices:
                err.print(line)
        found = runtime.evaluate("artifact", rows, show)
    for prompt in runtime.prompts("artifact"):
        tell_cut(prompt.bound)
    tell_answers(found, runtime.prompts("artifact")[0].form)
    told = found.estimate.as_dict()
    out.print(f"{found.estimate.metric} {found.estimate} on {found.estimate.rows} rows")
    told |= _members_told(found, [path.name for path in held])
    if report is not None:
        from ..reporting import report_of

        what = " + ".join(f"{manifest.method['name']} on {manifest.base.id}" for manifest in held.values())
        source = Path(data).name if data is not None else f"{split} rows"
        more = report_of(f"{task.name}: {what}, {source}", task, found, rows)
        tell_report(more, report)
        told["report"] = more.as_dict()
    if outcomes is not None:
        write_rows(outcomes, [item.as_dict() for item in found.outcomes])
    tell_json(document, told)


def _members_told(found: Evaluation, names: Sequence[str]) -> dict[str, Any]:
    """Print how an ensemble's members did, and what they gain together; the same for JSON. Nothing of one artifact."""
    if not found.members:
        return {}
    for name, one in zip(names, found.members, strict=True):
        out.print(f"member {name}: {one.estimate.metric} {one.estimate}")
    each = [{"name": name, **member_measures(one)} for name, one in zip(names, found.members, strict=True)]
    return {"members": each, **tell_gain(found, found.members, names)}


def own_rows(artifact: Path, task: Task, split: str) -> list[Row]:
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
