"""`softprompt train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import app
from .console import err, out, progress, tell_answers, tell_cut
from .new import run_for_rows
from .options import Fresh, Json, LabelColumns, RunFolder, RunOrRows, Settings, TaskType, Test, TextColumns
from .outputs import refuse_replacing, tell_json

if TYPE_CHECKING:
    from ..auto import AutoRun
    from ..runfile import RunSpec
    from ..tasks import Task
    from ..training import Result, RunOptions


@app.command(
    "train",
    epilog="Examples: `softprompt train tickets.csv --text message --label team --out runs/tickets`, "
    "`softprompt train examples/movies.yaml method=soft train.epochs=2 --out runs/soft`",
)
def train_verb(
    run: RunOrRows,
    settings: Settings = None,
    text: TextColumns = None,
    label: LabelColumns = None,
    kind: TaskType = None,
    to: RunFolder = Path("runs/run"),
    fresh: Fresh = False,
    test: Test = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="First check that the method acts and can learn (see doctor).")
    ] = True,
    document: Json = None,
) -> None:
    """Train a prompt and save its artifact. The same command resumes a run that was cut short (bit-exact on the CPU).

    For a file of rows the task is proposed, as `new` does it. With `base=auto` or `method=auto`, probes and a learned
    prompt are compared first, and the best is trained. That is the default for a file of rows with labels.
    """
    from ..auto import is_open
    from ..errors import ConfigError
    from ..run_reader import holds_rows, load_run
    from ..tasks import Task

    refuse_replacing({"--json": document}, [run])
    if run.is_dir():
        raise ConfigError(f"{run}: is a folder; name a run file (YAML), or a file of rows such as CSV or JSONL")
    of_rows = holds_rows(run)
    if (text or label or kind) and not of_rows:
        raise ConfigError(
            f"{run}: is a run file, which names its columns itself; use --text, --label and --type with a file of rows"
        )
    spec = (
        run_for_rows(run, settings or [], text, label, kind) if of_rows else load_run(run, settings or [], whole=True)
    )
    task = Task.load(spec.task)
    options: RunOptions = {"test": test, "fresh": fresh, "check": check, "notice": err.print}
    choose = is_open(spec.base.model_dump(exclude_unset=True), spec.method)
    chosen = _trained_by_auto(spec, task, to, options) if choose else None
    result = None if choose else _trained(spec, task, to, options)
    for line in [] if of_rows else task.notices:  # of proposed tasks all is told
        err.print(line)
    if chosen is not None:
        _tell_choice(chosen)
        tell_json(document, chosen.as_dict())
    if result is not None:
        _tell(result)
        tell_json(document, result.as_dict())


def _trained(spec: RunSpec, task: Task, to: Path, options: RunOptions) -> Result:
    from ..methods import make_method
    from ..parallel import processes
    from ..trackers import check_installed
    from ..training import train
    from ..training.places import run_folder
    from ..training.saving import starts

    method = make_method(spec.method)
    starts(spec.method)  # what is not there is told before a base is loaded
    check_installed(spec.train.trackers)
    with run_folder(to), progress() as show:
        # bad rows are told before a model is loaded
        rows = processes().first(task.load_data, show)
        base = spec.base.load(show)
        how: RunOptions = {**options, "progress": show}
        return train(base, task, method, to, train=spec.train, cache=spec.cache, seed=spec.seed, rows=rows, **how)


def _trained_by_auto(spec: RunSpec, task: Task, to: Path, options: RunOptions) -> AutoRun:
    from ..auto import train_auto
    from ..estimators.shared import SharedRows, base_of

    with progress() as show:
        how: RunOptions = {**options, "progress": show}
        return train_auto(spec, task, to, base_of, SharedRows(), **how)


def _tell(result: Result) -> None:
    tell_cut(result.prepared.bound)
    for name, found in result.metrics.items():
        tell_answers(found, result.prepared.form)
        out.print(f"{name} {found.estimate.metric} {found.estimate} on {found.estimate.rows} rows")
    for name, estimate in result.recorded.items():
        out.print(f"{name} {estimate.metric} {estimate} on {estimate.rows} rows (measured by an earlier call)")
    spent = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in result.seconds.items())
    out.print(f"{result.parameters:,} parameters, best at step {result.best_step}; {spent}")
    out.print(f"artifact: {result.artifact}")


def _tell_choice(chosen: AutoRun) -> None:
    """The metrics of what answers; the comparison was printed before."""
    _, first = chosen.members[0]
    tell_cut(first.prepared.bound)
    for name, found in chosen.metrics.items():
        tell_answers(found, first.prepared.form)
        out.print(f"{name} {found.estimate.metric} {found.estimate} on {found.estimate.rows} rows")
    out.print(f"artifact: {chosen.artifact}")
