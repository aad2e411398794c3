"""The server on a Ray cluster: replicas of one application, each with the base and all artifacts, behind Ray's proxy.

`serve run softprompt.serve.ray:deployment artifacts=/data/runs replicas=2` calls `deployment` with these words; a file of
Ray Serve's holds them under `args`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from fastapi import FastAPI
from pydantic import BeforeValidator, Field
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..artifact import folder_of
from ..artifact.hub import is_hub
from ..config import Strict, parse
from ..documents import DocumentCache
from ..errors import MissingExtraError
from ..types import ignore_progress
from .http import create_app
from .limits import Limits
from .service import Service, artifacts_of

if TYPE_CHECKING:
    from ray.serve import Application

REPLICA_HEADER = "x-replica"


def _several(value: Any) -> Any:
    """On the command line of `serve run` each word is text: `artifacts=a,b`."""
    return value.split(",") if isinstance(value, str) else value


Several = Annotated[list[str], BeforeValidator(_several)]


class Settings(Strict):
    """What a cluster serves, and with how much.

    Attributes:
        artifacts: folders, or `hub:OWNER/NAME`, as `softprompt serve` takes them. Each replica reads them itself, so each
            node has the folders.
        base: bases instead of those that the artifacts were made on.
        dtype, quantization: of the bases.
        replicas: processes on the cluster; they share nothing.
        cpus, gpus: of a replica; a part of a GPU is allowed.
        queue, timeout, batch_wait_ms, documents_gb, grace: of a replica, as of `softprompt serve`.
    """

    artifacts: Several = Field(min_length=1)
    base: Several = Field([])
    dtype: str | None = None
    quantization: str | None = None
    replicas: int = Field(1, ge=1)
    cpus: float = Field(1.0, gt=0)
    gpus: float = Field(0.0, ge=0)
    queue: int = Field(2048, ge=1)
    timeout: float = Field(60.0, ge=0.1)
    batch_wait_ms: float = Field(0.0, ge=0, le=1000)
    documents_gb: float = Field(0.5, ge=0)
    grace: float = Field(30.0, ge=0)


def deployment(args: Mapping[str, Any]) -> Application:
    """The application for Ray Serve; nothing is loaded before it runs.

    If the variable SOFTPROMPT_TOKEN is set here, requests must bring it as a bearer token.

    Args:
        args: `Settings` by name. Relative folders are those of the process that calls this.

    Raises:
        ConfigError: an unknown setting, or one of the wrong kind.
        MissingExtraError: Ray Serve is not installed.

    Example:
        >>> from ray import serve
        >>> serve.run(deployment({"artifacts": "runs/movies", "replicas": 2}))
    """
    try:
        from ray import serve
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"Ray Serve needs {error.name}, which is not installed: pip install 'softprompt[ray]'"
        ) from None
    settings = parse(Settings, dict(args), "args")
    settings.artifacts = [one if is_hub(one) else str(Path(one).expanduser().absolute()) for one in settings.artifacts]
    token = os.environ.get("SOFTPROMPT_TOKEN")

    def build() -> FastAPI:
        app = application(settings, token)
        app.add_middleware(_Named, replica=serve.get_replica_context().replica_id.unique_id)
        return app

    # Ray lets five requests into a replica by default; ours run together, and the replica refuses what is too much
    placed = serve.deployment(
        serve.ingress(build)(_Replica),
        name="softprompt",
        num_replicas=settings.replicas,
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
        max_ongoing_requests=settings.queue + Limits().batch,
        graceful_shutdown_timeout_s=settings.grace,
        max_constructor_retry_count=3,  # a folder that is not there does not come by waiting
    )
    return placed.bind()


def application(settings: Settings, token: str | None = None) -> FastAPI:
    """What a replica answers with: bases and artifacts are loaded, and the service is in `state.service`.

    Nobody may load or remove artifacts: only the replica that is asked would do so.

    Raises:
        ArtifactError, ConfigError: what `softprompt serve` says of these folders and bases.
    """
    from ..cli.serving import manifests_of, runtime_for

    torch.set_num_threads(max(1, int(settings.cpus)))
    folders = [folder_of(one) for one in settings.artifacts]
    here = artifacts_of(folders)
    held = {name: manifests_of(path) for name, path in here.items()}
    runtime = runtime_for(here, held, settings.base, settings.dtype, settings.quantization, ignore_progress)
    runtime.documents = DocumentCache(int(settings.documents_gb * 1e9))
    limits = Limits(queue=settings.queue, seconds=settings.timeout, wait_ms=settings.batch_wait_ms)
    service = Service(runtime, folders, limits)
    app = create_app(service, token or None)  # an empty one asks for an open server, as on the command line
    app.state.service = service
    return app


class _Replica:
    """What Ray asks a replica beside requests; `app` is what Ray has built."""

    app: FastAPI

    def check_health(self) -> None:
        """Ray takes another replica in place of one that takes no requests.

        Raises:
            Stopping: see `Service.check_open`.
        """
        self.app.state.service.check_open()


class _Named:
    """Says in each answer which replica gave it: it is in the names of Ray's log files, too."""

    def __init__(self, app: ASGIApp, replica: str) -> None:
        self.app, self.replica = app, replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the header."""

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REPLICA_HEADER] = self.replica
            await send(message)

        await self.app(scope, receive, named)
