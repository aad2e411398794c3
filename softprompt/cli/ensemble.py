"""`softprompt ensemble`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .app import app
from .console import out, progress
from .members import Folders, Members, Weights, weights_of
from .options import Bases, Dtype, Json, Quantization
from .outputs import tell_json


@app.command(
    "ensemble",
    epilog="Examples: `softprompt ensemble runs/smollm2 runs/minilm --out runs/both`, then `softprompt eval runs/both`; "
    "`softprompt ensemble runs/a runs/b runs/c --combine vote --out runs/votes`",
)
def ensemble_verb(
    artifacts: Folders,
    to: Annotated[Path, typer.Option("--out", help="Folder of the ensemble.")],
    data: Annotated[
        str | None,
        typer.Option("--data", help="Labelled rows to choose the weights by. Default: dev of the first one's task."),
    ] = None,
    combine: Annotated[
        Literal["log_probs", "probs", "vote"],
        typer.Option(
            "--combine",
            help="Answer by the weighted mean of log-probabilities, by that of probabilities, or by the weighted majority "
            "of votes (ties: the higher mean probability).",
        ),
    ] = "log_probs",
    weights: Weights = None,
    base: Bases = None,
    dtype: Dtype = None,
    quantization: Quantization = None,
    document: Json = None,
) -> None:
    """Combine artifacts of one classification task, each on its own base. Their weights are chosen on dev rows.

    Votes count alike, and --weights sets the weights instead of choosing them. The gain is over the best member on these
    rows; its interval covers the choice of rows, and no other training.
    """
    from ..artifact import check_ensemble_place
    from ..ensemble import check_members, equal_weights, fit_weights, save_ensemble, scores_of, weighed

    members = Members.read(artifacts, "an ensemble", document, data)
    given = weights_of(weights, len(artifacts))
    check_ensemble_place(to)
    check_members(members.manifests)
    with progress() as show:
        runtime, rows, found = members.measured(data, base, dtype, quantization, show)
    chosen = given is None and combine != "vote"
    if combine == "vote":
        shares = given or equal_weights(len(artifacts))
    else:
        shares = given or fit_weights(*scores_of(found), combine=combine)
    both = weighed(found, shares, runtime.task("1").spec.metric, combine)
    metrics = {"dev": both.estimate.as_dict()}
    pairs = list(zip(artifacts, shares, strict=True))
    saved = save_ensemble(to, pairs, metrics, len(rows) if chosen else None, combine)
    told = members.tell(shares, found, "together", both)
    why = "dev chose the weights, so measure on other rows" if chosen else "measure it on other rows"
    out.print(f"saved in {to}; {why}: softprompt eval {to} --data ROWS")
    more = {"combine": combine, "weights": shares, "metrics": metrics, "digest": saved.digest}
    tell_json(document, {"out": str(to), **more, **told})
