"""`softprompt prune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .app import app
from .console import err, out, progress, run_of
from .options import Json, from_hub
from .outputs import refuse_replacing, tell_json

if TYPE_CHECKING:
    from ..artifact import Artifact
    from ..runfile import TrainSpec
    from ..tasks import Task
    from ..training.prune import Pruning

_DURATION = {
    "epochs",
    "max_steps",
    "min_steps",
    "eval_every",
}  # of the run's settings, those that say how long it trained


@app.command(
    "prune",
    epilog="Example: `softprompt prune runs/movies --to 8 --to 4 --to 2 --out runs/pruned train.epochs=2`",
)
def prune_verb(
    artifact: Annotated[
        Path, typer.Argument(callback=from_hub, help="Folder of the run that made the artifact (or its artifact/).")
    ],
    settings: Annotated[list[str] | None, typer.Argument(help="train.key=value overrides of the short run.")] = None,
    to: Annotated[
        list[int] | None, typer.Option("--to", min=1, help="Learned tokens to keep; may be repeated.")
    ] = None,
    folder: Annotated[Path, typer.Option("--out", help="Folder for the runs, one per length.")] = Path("runs/pruned"),
    run_file: Annotated[
        Path | None,
        typer.Option("--run", help="Run file that names base and data (default: the run's own, if it was made here)."),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Training rows on which importance is measured.")] = 128,
    document: Json = None,
) -> None:
    """Drop the least important learned tokens, train the others on for an epoch, and compare on dev."""
    from ..artifact import load
    from ..errors import ConfigError
    from ..run_reader import load_run
    from ..tasks import Task
    from ..training.places import work_folder
    from ..training.prune import WRITTEN, prune

    refuse_replacing({"--json": document}, [run_file])
    held, run = load(artifact), load_run(run_file, []) if run_file is not None else run_of(artifact)
    if run is None:
        raise ConfigError(
            f"{artifact}: there is no run.yaml beside the artifact that a run here wrote, which names base and data; give the "
            "folder of its run, or a run file with --run"
        )
    task = _as_trained(Task.load(run.task, held.manifest.format_version), held)
    with work_folder(folder, WRITTEN), progress() as show:
        data = task.load_data(show)
        base = run.base.load(show)
        report = prune(
            base,
            task,
            held,
            to or [],
            folder,
            train=_train_spec(run.train, settings or []),
            cache=run.cache,
            seed=run.seed,
            rows=data,
            importance_rows=rows,
            progress=show,
            notice=err.print,
        )
    table = Table("learned tokens", "kept", "dev as cut", "dev trained on", "artifact")
    for one in report.lengths:
        kept = "all" if one is report.lengths[0] else " ".join(map(str, one.kept))
        table.add_row(str(one.length), kept, str(one.start), str(one.dev), str(one.artifact))
    out.print(table)
    out.print(f"{report.lengths[0].dev.metric} on {report.lengths[0].dev.rows} dev rows, {report.seconds:.1f} s in all")
    tell_json(document, report.as_dict())
    _plot(report, folder / "prune.png")


def _train_spec(of_run: TrainSpec, settings: list[str]) -> TrainSpec:
    """How the run was trained, for one epoch unless the settings say otherwise.

    Raises:
        ConfigError: a setting that is not one of `train`.
    """
    from ..config import override, parse
    from ..errors import ConfigError
    from ..runfile import TrainSpec

    if wrong := [item for item in settings if not item.startswith("train.")]:
        raise ConfigError(f"{wrong[0]!r}: only train.key=value can be set here; the rest is that of the artifact's run")
    data = {"train": of_run.model_dump(mode="json", exclude=_DURATION, exclude_none=True)}
    return parse(TrainSpec, override(data, settings)["train"], "train")


def _plot(report: Pruning, path: Path) -> None:
    """Metric against length with its interval, if matplotlib is there."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        err.print("no plot: matplotlib is not installed (pip install matplotlib)")
        return
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for name, found in (
        ("as cut", [one.start for one in report.lengths]),
        ("trained on", [one.dev for one in report.lengths]),
    ):
        lengths, values = [one.length for one in report.lengths], [one.value for one in found]
        below = [one.value - one.interval[0] for one in found]
        above = [one.interval[1] - one.value for one in found]
        axes.errorbar(lengths, values, yerr=[below, above], marker="o", capsize=3, label=name)
    axes.set_xlabel("learned tokens")
    axes.set_ylabel(f"dev {report.lengths[0].dev.metric}, 95 % interval")
    axes.legend()
    figure.savefig(path, dpi=120)
    out.print(f"plot: {path}")


def _as_trained(task: Task, held: Artifact) -> Task:
    """The run's task, with what the artifact says of how it was trained, or what its version meant."""
    from ..tasks import Task
    from ..tasks.scored import ScoredTask

    known = None if held.manifest.task is None else Task.of_artifact(held.manifest.task, held.manifest.format_version)
    return task.settled(earlier=isinstance(known, ScoredTask) and not known.over_labels)
