"""`softprompt distil`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .app import app
from .console import err, out, progress, tell_cut
from .options import Fresh, Json, RunFile, RunFolder, Settings, Test
from .outputs import refuse_replacing, tell_json

LEANS = 0.9  # share of one answer above which a long prompt is doubted


@app.command(
    "distil",
    epilog="Examples: `softprompt distil examples/movies.yaml --demonstrations 8 --out runs/short --test`, "
    "`softprompt distil examples/movies.yaml method=prefix method.length=16 --out runs/short`",
)
def distil_verb(
    run: RunFile,
    settings: Settings = None,
    to: RunFolder = Path("runs/short"),
    demonstrations: Annotated[
        int, typer.Option("--demonstrations", min=0, help="Labelled training rows in the long prompt.")
    ] = 8,
    instruction: Annotated[
        str | None, typer.Option("--instruction", help="Instruction of the long prompt (default: the task's).")
    ] = None,
    fresh: Fresh = False,
    test: Test = False,
    document: Json = None,
) -> None:
    """Replace a long hard prompt by a few learned tokens that match the base's answers behind it. No labels are needed.

    The run file's method is what replaces the long prompt.
    """
    from ..methods import make_method
    from ..run_reader import load_run
    from ..tasks import Task
    from ..training.distil import WRITTEN, distil
    from ..training.places import run_folder
    from ..training.saving import starts

    refuse_replacing({"--json": document}, [run])
    spec = load_run(run, settings or [], whole=True)
    task, method = Task.load(spec.task), make_method(spec.method)
    starts(spec.method)  # what is not there is told before a base is loaded
    with run_folder(to, WRITTEN), progress() as show:
        rows = task.load_data(show, labelled=False)
        base = spec.base.load(show)
        done = distil(
            base,
            task,
            method,
            to,
            demonstrations=demonstrations,
            instruction=instruction,
            train=spec.train,
            cache=spec.cache,
            seed=spec.seed,
            test=test,
            fresh=fresh,
            rows=rows,
            progress=show,
            notice=err.print,
        )
    if cut := done.report["truncated"]["prompt"]:
        err.print(f"{cut} texts had to be cut behind the long prompt")
    tell_cut(done.result.prepared.bound)
    for line in task.notices:
        err.print(line)
    _tell(done.report)
    out.print(f"artifact: {done.result.artifact}")
    tell_json(document, {**done.report, "artifact": done.result.artifact})


def _tell(report: dict[str, Any]) -> None:
    if leaning := [name for name, share in report["commonest"].items() if share > LEANS]:
        err.print(
            f"warning: the long prompt gives one answer to {report['commonest'][leaning[0]]:.0%} of the {leaning[0]} rows, so "
            "agreement says little. If they are not really so, use other demonstrations (demonstrations.seed of the task), "
            "an --instruction, or scoring.calibration: contextual"
        )
    for name, found in report["agreement"].items():
        out.print(
            f"{name} agreement with the long prompt {_shown(found)} on {found['rows']} rows "
            f"(its commonest answer alone: {report['commonest'][name]:.3f})"
        )
    for name, both in report["accuracy"].items():
        prompt, student = both["prompt"], both["student"]
        out.print(
            f"{name} {prompt['metric']} against the rows' own labels: long prompt {_shown(prompt)}, "
            f"{report['student']['method']} {_shown(student)} on {prompt['rows']} rows"
        )
    out.print(
        f"{report['prompt']['tokens']} tokens of the long prompt become {report['student']['tokens']} "
        f"({report['student']['length']} learned); {report['saved']} saved per request"
    )
    out.print(", ".join(f"{what} {seconds:.1f} s" for what, seconds in report["seconds"].items()))


def _shown(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['value']:.3f} [{low:.3f}, {high:.3f}]"
