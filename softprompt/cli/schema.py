"""`softprompt schema`."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from .app import app
from .options import Json
from .outputs import refuse_replacing, tell_json


class File(str, Enum):
    """Files that people write."""

    run = "run"
    task = "task"


@app.command("schema", epilog="Example: `softprompt schema run > run.schema.json`")
def schema_verb(
    file: Annotated[File, typer.Argument(help="Which file: a run file, or a task file.")],
    document: Json = None,
) -> None:
    """Print the JSON schema of a run file or a task file, so that editors can complete and check keys.

    The YAML file names it in its first line: `# yaml-language-server: $schema=run.schema.json`, relative to the YAML file.
    """
    from ..schema import SCHEMAS, as_json

    refuse_replacing({"--json": document})
    if document is None:
        typer.echo(as_json(file.value), nl=False)
    tell_json(document, SCHEMAS[file.value]())
