"""`softprompt average`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import out, progress
from .members import Folders, Members, Weights, weights_of
from .options import Bases, Dtype, Json, Quantization
from .outputs import tell_json


@app.command(
    "average",
    epilog="Example: `softprompt average runs/seed0 runs/seed1 --out runs/mean`, then `softprompt eval runs/mean`",
)
def average_verb(
    artifacts: Folders,
    to: Annotated[Path, typer.Option("--out", help="Folder of the new artifact.")],
    data: Annotated[
        str | None,
        typer.Option("--data", help="Labelled rows to measure on. Default: dev of the first one's task."),
    ] = None,
    weights: Weights = None,
    base: Bases = None,
    dtype: Dtype = None,
    quantization: Quantization = None,
    document: Json = None,
) -> None:
    """Average what artifacts of one method, shape, base and task have learned, as one artifact. It costs what one of them does.

    Prompts that began in one place may have a good mean, others a bad one. So the members and their mean are
    measured, with the gain over the best member on these rows. Its interval covers the choice of rows, and no other training.
    """
    from ..artifact import check_place, load
    from ..ensemble import equal_weights
    from ..training.averaging import average, check_alike

    members = Members.read(artifacts, "an average", document, data)
    shares = weights_of(weights, len(artifacts)) or equal_weights(len(artifacts))
    check_place(to)
    check_alike(members.manifests)
    with progress() as show:
        runtime, rows, found = members.measured(data, base, dtype, quantization, show)
        held = [load(folder) for folder in artifacts]
        mean = average(list(zip(held, shares, strict=True)), runtime.base_for(held[0].manifest))
        runtime.add("average", mean)
        joined = runtime.evaluate("average", rows, show)
    metrics = {"dev": joined.estimate.as_dict()}
    saved = mean.save(to, metrics)
    told = members.tell(shares, found, "average", joined)
    out.print(f"saved in {to}; measure it on other rows: softprompt eval {to} --data ROWS")
    tell_json(document, {"out": str(to), "weights": shares, "metrics": metrics, "digest": saved.digest, **told})
