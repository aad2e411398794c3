"""`softprompt export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import base_of, out, progress
from .options import ArtifactFolder, Json
from .outputs import refuse_replacing, tell_json


@app.command(
    "export",
    epilog="Example: `softprompt export runs/soft --to peft --out exported/soft`, then "
    '`PeftModel.from_pretrained(model, "exported/soft")`',
)
def export_verb(
    artifact: ArtifactFolder,
    to: Annotated[
        str,
        typer.Option(
            "--to", help="Format: peft, kv, prompt-embeds, merged (as `softprompt merge` writes it) or gguf-alora."
        ),
    ],
    folder: Annotated[Path, typer.Option("--out", help="Folder of the export; must not exist yet.")],
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="FIELD=VALUE", help="A field of the row that prompt-embeds makes a request of."),
    ] = None,
    base_id: Annotated[str | None, typer.Option("--base", help="Base, if it is not the recorded one.")] = None,
    document: Json = None,
) -> None:
    """Write an artifact for another program (PEFT, transformers, vLLM, llama.cpp), with a README that loads it."""
    from transformers.utils import logging

    from ..exporting.run import plan

    refuse_replacing({"--json": document})
    planned = plan(artifact, to, folder, _row(text))
    logging.disable_progress_bar()
    base = None
    if planned.format.needs_base or base_id is not None:
        with progress() as show:
            # what others load holds its weights as they are
            named = base_of(artifact, planned.held.manifest.base.id, base_id, quantization="none")
            base = named.load(show)
    planned.write(base)
    out.print(f"exported: {folder} (its README.md has the code that loads it)")
    tell_json(document, {"out": folder, "format": to, "files": sorted(file.name for file in folder.iterdir())})


def _row(fields: list[str] | None) -> dict[str, str] | None:
    """A row of `FIELD=VALUE`s.

    Raises:
        ConfigError: one without a name, or a name twice.
    """
    from ..errors import ConfigError

    row: dict[str, str] = {}
    for field in fields or []:
        name, equals, value = field.partition("=")
        if not (name and equals) or name in row:
            raise ConfigError(
                f"--text {field[:80]!r}: expected FIELD=VALUE, each field once, e.g. --text text='A film.'"
            )
        row[name] = value
    return row or None
