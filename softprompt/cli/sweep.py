"""`softprompt sweep`: many runs on one encoding."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from .app import app
from .console import err, out, progress
from .options import Json, RunFile
from .outputs import refuse_replacing, tell_json

_SETTINGS = (
    "key=value overrides; several values: key=a,b,c. With --optuna also ranges: key=low..high, or key=low..high:log for a "
    "logarithmic scale. A range between integers gives integers."
)
_OPTUNA = (
    "Number of trials in all, earlier calls included. Optuna chooses them for the lowest dev log loss, instead of all "
    "combinations. Without settings that vary it searches the learning rate and the length around the run's own. Needs "
    "softprompt[optuna]."
)
_GIVEN_UP = {"median": "pruned", "not_finite": "diverged"}


@app.command(
    "sweep",
    epilog="Examples: `softprompt sweep examples/movies.yaml train.lr=0.003,0.01,0.03 seed=0,1,2 --out runs/sweep`; "
    "`softprompt sweep examples/movies.yaml train.lr=0.001..0.1:log method.length=4..64 --optuna 30 --out runs/search`",
)
def sweep_verb(
    run: RunFile,
    settings: Annotated[list[str] | None, typer.Argument(help=_SETTINGS)] = None,
    to: Annotated[Path, typer.Option("--out", help="Folder for the runs, one per combination.")] = Path("runs/sweep"),
    test: Annotated[
        bool, typer.Option("--test", help="Evaluate the best run (by dev) on the test rows, once.")
    ] = False,
    optuna: Annotated[int | None, typer.Option("--optuna", min=1, metavar="N", help=_OPTUNA)] = None,
    no_prune: Annotated[
        bool,
        typer.Option(
            "--no-prune",
            help="Train every trial to its end. By default a trial stops if its dev log loss is above earlier trials' median.",
        ),
    ] = False,
    document: Json = None,
) -> None:
    """Train every combination of the given values, or those that Optuna chooses. Texts are encoded once for all runs.

    The same command resumes a sweep that was cut short. The best run has the best dev metric; among runs that the metric
    cannot separate, the lowest dev log loss.
    """
    from ..errors import ConfigError
    from ..training.sweep import sweep

    refuse_replacing({"--json": document}, [run])
    if optuna is None and no_prune:
        raise ConfigError("--no-prune goes with --optuna N; a sweep over values trains every run to its end")
    if optuna is None and not settings:
        raise ConfigError("nothing varies; give values, e.g. train.lr=0.003,0.01,0.03, or --optuna 20 to search")
    with progress() as show:
        report = sweep(run, settings or [], to, test, show, err.print, optuna, not no_prune)
    if cut := sum(trial["truncated"] for trial in report["trials"]):
        err.print(f"{cut} texts (all trials together) were longer than what fits and were cut at their end")
    out.print(_table(report))
    out.print(
        f"best by dev: {report['best']} ({to / report['best']}); {report['seconds']:.1f} s in all, "
        f"{report['encode_seconds']:.1f} s of it encoding"
    )
    if "study" in report:
        out.print(f"study: {to / report['study']} (optuna-dashboard sqlite:///{to / report['study']})")
    if report.get("test"):
        low, high = report["test"]["interval"]
        out.print(f"test {report['test']['metric']} {report['test']['value']:.3f} [{low:.3f}, {high:.3f}]")
    tell_json(document, report)


def _table(report: dict[str, Any]) -> Table:
    """The trials, the best dev metric first; behind them those that were given up."""
    table = Table("run", "dev", "dev nll", "best step", "train s")
    for trial in sorted(report["trials"], key=lambda trial: (-trial["dev"]["value"], trial["dev_nll"])):
        low, high = trial["dev"]["interval"]
        shown = f"{trial['dev']['value']:.3f} [{low:.3f}, {high:.3f}]"
        table.add_row(
            trial["name"], shown, f"{trial['dev_nll']:.3f}", str(trial["best_step"]), f"{trial['seconds']['train']:.1f}"
        )
    for trial in report.get("pruned", []):
        nll = "" if trial["dev_nll"] is None else f"{trial['dev_nll']:.3f}"
        table.add_row(trial["name"], f"{_GIVEN_UP[trial['why']]} at step {trial['step']}", nll, "", "")
    return table
