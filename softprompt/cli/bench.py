"""`softprompt bench speed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import err, out, progress
from .options import Json
from .outputs import behind_links, refuse_replacing, tell_json

verbs = typer.Typer(
    no_args_is_help=True, help="Benchmarks: the figures we claim, and the commands that reproduce them."
)
app.add_typer(verbs, name="bench")


@verbs.command("speed", epilog="Example: `softprompt bench speed --only lora --only full --json speed.json`")
def speed_verb(
    base: Annotated[str, typer.Option("--base", help="Bundled name or folder.")] = "smollm2",
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            min=1,
            help="Measured steps per side and case (default: 3, up to 7 until the interval is narrow).",
        ),
    ] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Run these cases only; may be repeated.")] = None,
    grid: Annotated[
        str | None, typer.Option("--grid", help="Methods at several sizes: `all`, or 'P=5,20 B=8 T=30,120'.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", callback=behind_links, help="Draw seconds against sizes, or by case (.png, .svg)."),
    ] = None,
    folder: Annotated[Path, typer.Option("--out", help="Folder that keeps each case once it is measured.")] = Path(
        "runs/speed"
    ),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure these cases again, even if the folder holds them.")
    ] = False,
    document: Json = None,
) -> None:
    """Time and memory of a step against a peer's: one run, interleaved, medians, each side in its own process.

    The same command resumes a measurement that was cut short. Cases: soft prompts, infix, prefixes, LoRA, activated LoRA
    (`alora`), all weights (`full`), a mixed batch. Only by name (`--only`): `p_tuning`, `soft-b32`, `ia3`, `hard` and
    `probe` (forwards), `encoding`, and `sweep` (20 trials against one). With `--grid`, the names of methods: soft, infix,
    prefix, p_tuning, lora, alora, ia3, full, hard, probe. Utilisation is the model's FLOPs per second, divided by the rate
    of matrix products in the same run.
    """
    from .. import registry
    from ..errors import SoftpromptError

    refuse_replacing({"--json": document, "--plot": plot, "--out": folder / "rows.json"})
    if plot is not None:
        registry.find("softprompt.benchmarks", "speed_check_plot")(plot)
    with progress() as show:
        found = registry.find("softprompt.benchmarks", "speed")(
            base, steps, only or None, show, grid, folder=folder, fresh=fresh, notice=err.print
        )
    for table in registry.find("softprompt.benchmarks", "speed_tables")(found):
        out.print(table)
    for line in found["left_out"]:
        out.print(f"left out: {line}")
    tell_json(document, found)
    if plot is not None:
        registry.find("softprompt.benchmarks", "speed_plot")(found, plot)
    if wrong := [row["name"] for row in found["rows"] if row["losses_equal"] is False]:
        raise SoftpromptError(f"losses differ where they must be equal: {', '.join(wrong)}; no speeds were taken there")
