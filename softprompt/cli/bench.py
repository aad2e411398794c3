"""`softprompt bench speed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from . import app
from .console import out, progress

verbs = typer.Typer(
    no_args_is_help=True, help="Benchmarks: the figures we claim, and the commands that reproduce them."
)
app.add_typer(verbs, name="bench")


@verbs.callback()
def _group() -> None:
    """Keep `speed` a verb of its own while it is the only one."""


@verbs.command("speed", epilog="Example: `softprompt bench speed --only lora --only full --json speed.json`")
def speed_verb(
    base: Annotated[str, typer.Option("--base", help="Bundled name or folder.")] = "smollm2",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Measured steps per side and case.")] = 7,
    only: Annotated[list[str] | None, typer.Option("--only", help="Run these cases only (may be given again).")] = None,
    to: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
) -> None:
    """Time and memory of a training step against PEFT's: one run, interleaved, medians, each side in its own process.

    Cases: soft prompts, infix, prefixes, P-tuning, LoRA, activated LoRA (`alora`), all weights (`full`), a mixed batch.
    """
    from .. import registry
    from ..config import suggest
    from ..errors import ConfigError, SoftpromptError
    from ..storage import write_json

    names = registry.find("softprompt.benchmarks", "names")
    for name in only or []:
        if name not in names:
            raise ConfigError(f"no case {name!r}{suggest(name, names)}")
    with progress() as show:
        found = registry.find("softprompt.benchmarks", "speed")(base, steps, only or None, show)
    out.print(_table(found["rows"]))
    if to is not None:
        write_json(to, found)
    if wrong := [row["name"] for row in found["rows"] if row["losses_equal"] is False]:
        raise SoftpromptError(f"losses differ where they must be equal: {', '.join(wrong)}; no speeds were taken there")


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _table(rows: list[dict[str, Any]]) -> Table:
    names = ["case", "against", "P", "B", "text tokens", "trained", "peer's", "peer s", "ours s", "times faster"]
    table = Table(*names, "memory", "losses equal")
    for row in rows:
        length, equal = row["prompt_length"], {True: "yes", False: "no", None: "–"}[row["losses_equal"]]
        table.add_row(
            row["name"],
            row["peer"],
            "–" if length is None else str(length),
            str(row["batch"]),
            f"{row['text_tokens']:.0f}",
            _count(row.get("our_parameters")),
            _count(row.get("peer_parameters")),
            _number(row["peer_seconds"], 3),
            _number(row["our_seconds"], 3),
            _number(row["speedup"], 2),
            f"{row['memory_ratio']:.2f}",
            equal,
        )
    return table


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
