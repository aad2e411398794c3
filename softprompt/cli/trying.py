"""`softprompt try`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import app
from .console import err, out, progress
from .options import Json, LabelColumn, TextColumns
from .outputs import behind_links, refuse_replacing, tell_json

if TYPE_CHECKING:
    from ..benchmarks.ways.tried import Tried


@app.command(
    "try",
    epilog="Examples: `softprompt try tickets.csv`, `softprompt try tickets.csv --text message --label team --minutes 10 "
    "--html ways.html`",
)
def try_verb(
    data: Annotated[Path, typer.Argument(help="Rows with a label each: CSV, TSV, JSONL, JSON or Parquet.")],
    text: TextColumns = None,
    label: LabelColumn = None,
    minutes: Annotated[
        float,
        typer.Option("--minutes", min=0.1, help="Time limit. Methods that do not fit are left out and named."),
    ] = 3.0,
    html: Annotated[
        Path | None, typer.Option("--html", callback=behind_links, help="Also write a page with the plots.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the runs (default: runs/try-NAME). The same folder resumes them."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Try these only: majority, tfidf, probe, zero-shot, 8-shot, infix, lora-cue."),
    ] = None,
    base: Annotated[str, typer.Option("--base", help="Language model: bundled name or folder.")] = "smollm2",
    encoder: Annotated[str, typer.Option("--encoder", help="Encoder: bundled name or folder.")] = "minilm",
    document: Json = None,
) -> None:
    """Find the best method for a file of labelled rows: cross-validated, with intervals, in minutes.

    It compares the commonest label, TF-IDF, probes and learned prompts, and says whether more labels would help. It writes
    the winner's run file. The same command resumes a comparison that was cut short (it is `bench compare` underneath).
    """
    from .. import registry

    refuse_replacing({"--html": html, "--json": document}, [data])
    with progress() as show:
        found = registry.find("softprompt.benchmarks", "try")(
            data,
            text or [],
            label,
            minutes=minutes,
            folder=to,
            base=base,
            encoder=encoder,
            only=only or [],
            page=html,
            command=shlex.join(["softprompt", *sys.argv[1:]]),
            progress=show,
            notice=err.print,
        )
    _tell(found)
    if html is not None:
        out.print(f"page: {html}")
    tell_json(document, found.as_dict())


def _tell(found: Tried) -> None:
    from rich.table import Table

    from ..benchmarks.ways.words import cells, head

    table = Table(*head(found), title=f"{found.data.name}: {found.rows} rows, {found.folds} folds")
    for line in found.lines:
        table.add_row(*cells(found, line))
    out.print(table)
    for said in [*found.left_out, *found.advice]:
        out.print(said)
    for code in found.code:
        out.print(f"    {code}")
    if found.command is not None:
        out.print(f"wrote {found.file}; next: {found.command}")
