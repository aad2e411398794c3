"""`softprompt push`."""

from __future__ import annotations

from typing import Annotated

import typer

from .app import app
from .console import out, progress
from .options import ArtifactFolder, Json
from .outputs import refuse_replacing, tell_json


@app.command(
    "push",
    epilog="Example: `softprompt push runs/movies acme/movies`, then `softprompt predict hub:acme/movies --input rows.jsonl`",
)
def push_verb(
    artifact: ArtifactFolder,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the hub; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make a private repository.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch to write to; made if it is not there (default: main).")
    ] = None,
    message: Annotated[str | None, typer.Option("--message", help="Message of the commit.")] = None,
    document: Json = None,
) -> None:
    """Upload an artifact or an ensemble to the Hugging Face hub: its own files, in one commit.

    Log in with `hf auth login`, or set HF_TOKEN. Every place that takes a folder also takes hub:OWNER/NAME[@REVISION]. The
    address that is printed at the end holds the artifact's digest: another artifact is refused there.
    """
    from ..artifact import push

    refuse_replacing({"--json": document})
    with progress() as show:
        show("uploading", 0, 1)
        done = push(artifact, repo, private=private, revision=revision, message=message)
        show("uploading", 1, 1)
    out.print(f"commit: {done.url}")
    out.print(f"digest: {done.digest}")
    out.print(f"address: {done.address}")
    tell_json(document, done.as_dict())
