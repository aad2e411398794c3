"""`softprompt import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import err, out
from .options import Json, from_hub
from .outputs import refuse_replacing, tell_json


@app.command(
    "import", epilog="Example: `softprompt import peft-folder --task movie-reviews --base smollm2 --out prompts/movies`"
)
def import_verb(
    folder: Annotated[
        Path,
        typer.Argument(
            callback=from_hub,
            help="Folder that PEFT's save_pretrained wrote (a prompt, a prefix, LoRA or another tuner), or hub:OWNER/NAME.",
        ),
    ],
    task: Annotated[
        str, typer.Option("--task", help="Task with the template it was trained with: ready name or file.")
    ],
    to: Annotated[Path, typer.Option("--out", help="Folder for the artifact.")],
    base: Annotated[str, typer.Option("--base", help="The base it was trained on.")] = "smollm2",
    document: Json = None,
) -> None:
    """Convert what PEFT trained into an artifact."""
    from ..artifact import check_place
    from ..runfile import BaseSpec
    from ..tasks import Task
    from ..training.importing import import_peft, read_folder

    refuse_replacing({"--json": document})
    check_place(to)
    held, ready = read_folder(folder), Task.load(task)  # what a stranger made is refused before a base is loaded
    done = import_peft(held, BaseSpec(name=base).load(), ready, to, err.print)
    out.print(f"artifact: {done}")
    tell_json(document, {"artifact": done})
