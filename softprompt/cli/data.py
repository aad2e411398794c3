"""`softprompt data list | get`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ..types import megabytes
from .app import app
from .console import out, progress
from .options import Json
from .outputs import behind_links, refuse_replacing, tell_json

verbs = typer.Typer(no_args_is_help=True, help="Ready-made data, from pinned packages, checked by digest.")
app.add_typer(verbs, name="data")


@verbs.command("list")
def list_data(document: Json = None) -> None:
    """Show the catalogue with licences."""
    from ..data import CATALOGUE

    refuse_replacing({"--json": document})
    table = Table("name", "what", "task type", "rows", "fields", "language", "licence")
    for source in CATALOGUE.values():
        fields = ", ".join(source.fields)
        table.add_row(source.name, source.title, source.task, str(source.rows), fields, source.language, source.licence)
    out.print(table)
    names = ("name", "title", "task", "rows", "fields", "language", "licence", "citation")
    tell_json(document, [{name: getattr(source, name) for name in names} for source in CATALOGUE.values()])


@verbs.command("get", epilog="Example: `softprompt data get movie-reviews --out reviews.jsonl`")
def get_data(
    name: Annotated[str, typer.Argument(help="Name from `softprompt data list`.")],
    to: Annotated[
        Path | None, typer.Option("--out", callback=behind_links, help="Also copy the JSONL file here.")
    ] = None,
    document: Json = None,
) -> None:
    """Fetch a data set as JSONL and print where it lies and what its rows hold."""
    from ..data import CATALOGUE, get_source
    from ..storage import atomic_file

    refuse_replacing({"--out": to, "--json": document})
    with progress() as show:
        path = get_source(name, megabytes(f"fetching {name}", show))
    if to is not None:
        with atomic_file(to) as temporary:
            shutil.copyfile(path, temporary)
    source = CATALOGUE[name]
    fields = ", ".join(source.fields)
    with path.open("rb") as file:  # a source of the user's own files may have another number than the catalogue says
        rows = sum(1 for _ in file)
    out.print(f"{to or path}  ({rows} rows of {fields}; {source.licence}; cite: {source.citation})")
    told = {name: getattr(source, name) for name in ("name", "fields", "licence", "citation")}
    tell_json(document, {**told, "file": to or path, "rows": rows})
