"""`softprompt train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import app
from .console import err, out, progress, tell_cut


@app.command(
    "train",
    epilog="Examples: `softprompt train examples/movies.yaml --out runs/movies`, "
    "`softprompt train examples/movies.yaml method=soft train.epochs=2 --out runs/soft`",
)
def train_verb(
    run: Annotated[Path, typer.Argument(help="Run file (YAML): base, task, method, train, cache, seed.")],
    settings: Annotated[
        list[str] | None, typer.Argument(help="key=value overrides, e.g. train.lr=0.01 seed=1.")
    ] = None,
    to: Annotated[Path, typer.Option("--out", help="Folder of the run: checkpoint, event log, artifact.")] = Path(
        "runs/run"
    ),
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over even if the folder holds a checkpoint.")] = False,
    test: Annotated[bool, typer.Option("--test", help="Also evaluate on the test rows, once, at the end.")] = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="First look whether the method acts and can learn (see doctor).")
    ] = True,
) -> None:
    """Train a prompt and save its artifact. The same command goes on where it was cut short (bit-exact on the CPU)."""
    from ..methods import make_method
    from ..parallel import processes
    from ..tasks import Task
    from ..training import load_run, train

    spec = load_run(run, settings or [])
    task, method = Task.load(spec.task), make_method(spec.method)
    with progress() as show:
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
    if task.left_out.copies or task.left_out.contradicting:
        err.print(
            f"left out: {task.left_out.copies} copies of other rows, {task.left_out.contradicting} texts whose copies "
            "have different labels"
        )
    for name, found in result.metrics.items():
        out.print(f"{name} {found.estimate.metric} {found.estimate} on {found.estimate.rows} rows")
    spent = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in result.seconds.items())
    out.print(f"{result.parameters:,} parameters, best at step {result.best_step}; {spent}")
    out.print(f"artifact: {result.artifact}")
