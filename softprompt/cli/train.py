"""`softprompt train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import err, out, progress, tell_answers, tell_cut
from .options import Fresh, Json, RunFile, RunFolder, Settings, Test
from .outputs import refuse_replacing, tell_json


@app.command(
    "train",
    epilog="Examples: `softprompt train examples/movies.yaml --out runs/movies`, "
    "`softprompt train examples/movies.yaml method=soft train.epochs=2 --out runs/soft`",
)
def train_verb(
    run: RunFile,
    settings: Settings = None,
    to: RunFolder = Path("runs/run"),
    fresh: Fresh = False,
    test: Test = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="First look whether the method acts and can learn (see doctor).")
    ] = True,
    document: Json = None,
) -> None:
    """Train a prompt and save its artifact. The same command goes on where it was cut short (bit-exact on the CPU)."""
    from ..methods import make_method
    from ..parallel import processes
    from ..runfile import load_run
    from ..tasks import Task
    from ..training import train
    from ..training.places import run_folder
    from ..training.saving import starts

    refuse_replacing({"--json": document}, [run])
    spec = load_run(run, settings or [])
    task, method = Task.load(spec.task), make_method(spec.method)
    starts(spec.method)  # what is not there is told before a base is loaded
    with run_folder(to), progress() as show:
        # bad rows are told before a model is loaded
        rows = processes().first(task.load_data, show)
        base = spec.base.load(show)
        result = train(
            base,
            task,
            method,
            to,
            train=spec.train,
            cache=spec.cache,
            seed=spec.seed,
            test=test,
            fresh=fresh,
            rows=rows,
            progress=show,
            check=check,
            notice=err.print,
        )
    tell_cut(result.prepared.bound)
    for line in task.notices:
        err.print(line)
    for name, found in result.metrics.items():
        tell_answers(found, result.prepared.form)
        out.print(f"{name} {found.estimate.metric} {found.estimate} on {found.estimate.rows} rows")
    for name, estimate in result.recorded.items():
        out.print(f"{name} {estimate.metric} {estimate} on {estimate.rows} rows (measured by an earlier call)")
    spent = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in result.seconds.items())
    out.print(f"{result.parameters:,} parameters, best at step {result.best_step}; {spent}")
    out.print(f"artifact: {result.artifact}")
    tell_json(document, result.as_dict())
