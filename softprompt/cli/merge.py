"""`softprompt merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import base_of, out, progress
from .options import Json, from_hub
from .outputs import refuse_replacing, tell_json


@app.command(
    "merge",
    epilog="Example: `softprompt merge runs/lora --out models/movies`, then "
    '`AutoModelForCausalLM.from_pretrained("models/movies")`',
)
def merge_verb(
    artifact: Annotated[
        Path,
        typer.Argument(
            callback=from_hub, help="Artifact of lora, peft:TYPE or full, the folder of its run, or hub:OWNER/NAME."
        ),
    ],
    to: Annotated[Path, typer.Option("--out", help="Folder of the plain transformers model; must not exist yet.")],
    base_id: Annotated[str | None, typer.Option("--base", help="Base, if it is not the recorded one.")] = None,
    document: Json = None,
) -> None:
    """Merge the learned weights into the base and save a plain transformers model folder."""
    from transformers.utils import logging

    from ..artifact import load
    from ..errors import ConfigError
    from ..storage import check_writable
    from ..training.merging import merge

    refuse_replacing({"--json": document})
    logging.disable_progress_bar()
    held = load(artifact)
    if to.exists():
        raise ConfigError(f"{to}: exists already; choose another folder")
    check_writable(to)
    with progress() as show:
        # into the checkpoint's own weights, not into quantised ones
        base = base_of(artifact, held.manifest.base.id, base_id, quantization="none").load(show)
        head = merge(held, base, to, str(artifact))
    out.print(f"model: {to}")
    if head is not None:
        out.print(f"head: {head} (an artifact whose base is {to})")
    tell_json(document, {"model": to, "head": head})
