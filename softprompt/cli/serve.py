"""`softprompt serve`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import err, progress
from .options import Bases, Dtype, Json, Quantization, from_hub
from .outputs import refuse_replacing, tell_json
from .serving import manifests_of, runtime_for

_Folders = Annotated[
    list[Path],
    typer.Argument(callback=from_hub, help="Artifacts, runs, ensembles, folders in which some lie, or hub:OWNER/NAME."),
]
_Host = Annotated[str, typer.Option("--host", help="Address to listen on. 0.0.0.0: reachable from elsewhere.")]
_Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0: a free one.")]
_Token = Annotated[
    str | None,
    typer.Option("--token", envvar="SOFTPROMPT_TOKEN", help="Bearer token that requests must bring (default: none)."),
]
_AdminToken = Annotated[
    str | None,
    typer.Option(
        "--admin-token",
        envvar="SOFTPROMPT_ADMIN_TOKEN",
        help="Bearer token for loading and removing artifacts (default: nobody may).",
    ),
]
_Owners = Annotated[
    list[str] | None,
    typer.Option(
        "--hub", metavar="OWNER", help="Account on the hub whose artifacts may be loaded later. Repeat it for several."
    ),
]
_Watch = Annotated[
    bool, typer.Option("--watch", help="Load artifacts that appear or change in the folders, remove those that go.")
]
_Queue = Annotated[int, typer.Option("--queue", min=1, help="Answers that may wait.")]
_Seconds = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for a request.")]
_Wait = Annotated[
    float, typer.Option("--batch-wait-ms", min=0, max=1000, help="How long an idle server waits for more requests.")
]
_Memory = Annotated[
    float,
    typer.Option("--documents-gb", min=0, help="Memory for texts that were read, for the next questions about them."),
]
_Grace = Annotated[
    float, typer.Option("--grace", min=0, help="Seconds that requests under way have when the server stops.")
]


@app.command(
    "serve",
    epilog="Examples: `softprompt serve runs/`, `softprompt serve runs/movies runs/tweets --port 9000`. Then: "
    '`curl localhost:8080/v1/classify -H \'content-type: application/json\' -d \'{"model": "movies", "text": "A quiet '
    "triumph.\"}'`",
)
def serve_verb(
    folders: _Folders,
    host: _Host = "127.0.0.1",
    port: _Port = 8080,
    token: _Token = None,
    admin_token: _AdminToken = None,
    owners: _Owners = None,
    watch: _Watch = False,
    queue: _Queue = 2048,
    seconds: _Seconds = 60.0,
    wait: _Wait = 0.0,
    memory: _Memory = 0.5,
    grace: _Grace = 30.0,
    base: Bases = None,
    dtype: Dtype = None,
    quantization: Quantization = None,
    document: Json = None,
) -> None:
    """Serve many artifacts on one base over HTTP, with a page to try them at /.

    Requests that wait together run together, whichever artifacts they ask. A text is read once for all artifacts that share
    its reading, and kept. --json prints the address once it is open. The access log goes to stderr, without texts.
    docs/serving.md lists every path.
    """
    from ..documents import DocumentCache
    from ..errors import MissingExtraError

    try:
        from ..serve.limits import Limits
        from ..serve.running import address_of, listen, server_of
        from ..serve.service import Service, artifacts_of
        from ..serve.tokens import check_tokens
        from ..serve.watching import follow
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"softprompt serve needs {error.name}, which is not installed: pip install 'softprompt[serve]'"
        ) from None

    refuse_replacing({"--json": document})
    check_tokens(token, admin_token)
    here = artifacts_of(folders)
    with listen(host, port) as opened:  # before the base is loaded, which may take minutes
        with progress() as show:
            held = {name: manifests_of(path) for name, path in here.items()}
            runtime = runtime_for(here, held, base or [], dtype, quantization, show)
        runtime.documents = DocumentCache(int(memory * 1e9))
        limits = Limits(queue=queue, seconds=seconds, wait_ms=wait)
        service = Service(runtime, folders, limits, owners or [])
        if watch:
            follow(service, here, folders, err.print)
        names = ", ".join(list(here)[:8]) + (" …" if len(here) > 8 else "")
        where = address_of(host, opened)
        err.print(f"{len(here)} artifacts ({names}) at {where}")
        tell_json(document, {"address": where, "artifacts": list(here)})
        sys.stdout.flush()  # whoever has started the server waits for it
        if not server_of(service, token, admin_token, grace).serve_on(opened):
            # a batch still runs: the interpreter would tear its thread out of torch, which aborts the process
            sys.stderr.flush()
            os._exit(0)
