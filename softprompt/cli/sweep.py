"""`softprompt sweep`: many runs on one encoding."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from .app import app
from .console import err, out, progress
from .options import Json, RunFile
from .outputs import refuse_replacing, tell_json


@app.command(
    "sweep",
    epilog="Example: `softprompt sweep examples/movies.yaml train.lr=0.003,0.01,0.03 seed=0,1,2 --out runs/sweep`",
)
def sweep_verb(
    run: RunFile,
    settings: Annotated[list[str], typer.Argument(help="key=value overrides; several values: key=a,b,c.")],
    to: Annotated[Path, typer.Option("--out", help="Folder; one run folder in it per combination.")] = Path(
        "runs/sweep"
    ),
    test: Annotated[
        bool, typer.Option("--test", help="Evaluate the best run (by dev) on the test rows, once.")
    ] = False,
    document: Json = None,
) -> None:
    """Train every combination of the given values; texts are encoded once for all of them. Resumable run by run."""
    from ..training.sweep import sweep

    refuse_replacing({"--json": document}, [run])
    with progress() as show:
        report = sweep(run, settings, to, test, show, err.print)
    if cut := sum(trial["truncated"] for trial in report["trials"]):
        err.print(f"{cut} texts (all trials together) were longer than what fits and were cut at their end")
    table = Table("run", "dev", "dev nll", "best step", "train s")
    for trial in sorted(report["trials"], key=lambda trial: (-trial["dev"]["value"], trial["dev_nll"])):
        low, high = trial["dev"]["interval"]
        shown = f"{trial['dev']['value']:.3f} [{low:.3f}, {high:.3f}]"
        table.add_row(
            trial["name"], shown, f"{trial['dev_nll']:.3f}", str(trial["best_step"]), f"{trial['seconds']['train']:.1f}"
        )
    out.print(table)
    out.print(
        f"best by dev: {report['best']} ({to / report['best']}); {report['seconds']:.1f} s in all, "
        f"{report['encode_seconds']:.1f} s of it encoding"
    )
    if report.get("test"):
        low, high = report["test"]["interval"]
        out.print(f"test {report['test']['metric']} {report['test']['value']:.3f} [{low:.3f}, {high:.3f}]")
    tell_json(document, report)
