"""`softprompt ensemble`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import app
from .console import out, progress
from .evaluate import own_rows
from .options import Bases, Dtype, Json, Quantization
from .outputs import refuse_replacing, tell_json
from .serving import manifests_of, runtime_for

if TYPE_CHECKING:
    from ..answers import Evaluation


@app.command(
    "ensemble",
    epilog="Example: `softprompt ensemble runs/smollm2 runs/minilm --out runs/both`, then `softprompt eval runs/both`",
)
def ensemble_verb(
    artifacts: Annotated[
        list[Path], typer.Argument(help="Two or more artifact folders, or folders of runs, of one task.")
    ],
    to: Annotated[Path, typer.Option("--out", help="Folder of the ensemble.")],
    data: Annotated[
        str | None,
        typer.Option("--data", help="Labelled rows to choose the weights by. Default: dev of the first one's task."),
    ] = None,
    base: Bases = None,
    dtype: Dtype = None,
    quantization: Quantization = None,
    document: Json = None,
) -> None:
    """Combine artifacts of one classification task, each on its own base. Their weights are chosen on dev rows."""
    from ..artifact import check_ensemble_place
    from ..ensemble import check_members, fit_weights, save_ensemble, scores_of, weighed
    from ..errors import ConfigError

    refuse_replacing({"--json": document}, [data] if data is not None else [])
    if len(artifacts) < 2:
        raise ConfigError("an ensemble has at least two members; name two artifacts")
    check_ensemble_place(to)
    folders = {f"{place}": folder for place, folder in enumerate(artifacts, 1)}
    held = {name: manifests_of(folder) for name, folder in folders.items()}
    if nested := next((name for name, own in held.items() if len(own) > 1), None):
        raise ConfigError(f"{folders[nested]}: is an ensemble itself; name its members' folders")
    check_members({str(folder): next(iter(held[name].values())) for name, folder in folders.items()})
    with progress() as show:
        runtime = runtime_for(folders, held, base or [], dtype, quantization, show)
        task = runtime.task("1")
        if data is None:
            rows = own_rows(artifacts[0], task, "dev")
        else:
            rows = task.read(str(Path(data).absolute()) if Path(data).exists() else data, show)
        found = [runtime.evaluate(name, rows, show) for name in folders]
    weights = fit_weights(*scores_of(found))
    both = weighed(found, weights, task.spec.metric)
    metrics = {"dev": both.estimate.as_dict()}
    saved = save_ensemble(to, list(zip(artifacts, weights, strict=True)), metrics, len(rows))
    for folder, weight, one in zip(artifacts, weights, found, strict=True):
        out.print(_line(str(folder), one, f", weight {weight:.3f}"))
    out.print(_line("together", both, ""))
    out.print(f"saved in {to}; dev chose the weights, so measure on other rows: softprompt eval {to} --data ROWS")
    tell_json(document, {"out": str(to), "weights": weights, "metrics": metrics, "digest": saved.digest})


def _line(name: str, found: Evaluation, more: str) -> str:
    return f"{name}: dev {found.estimate.metric} {found.estimate}, log loss {found.nll:.3f}{more}"
