"""What the routes work on: the artifacts that are loaded, the scheduler, and the figures of the server."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from .. import artifact as artifacts
from ..config import suggest
from ..ensemble import Together
from ..errors import ArtifactError, ConfigError, DataError, SoftpromptError
from ..runtime import Runtime
from ..storage import called
from .limits import Limits
from .request import Request, prepared
from .scheduler import Scheduler


class Stopping(Exception):
    """The server takes no requests any more."""


class Unknown(SoftpromptError):
    """A name under which nothing is loaded."""


class Service:
    """A runtime that is served.

    Args:
        runtime: its artifacts are served; more may be added and removed while it runs.
        roots: folders in which artifacts may lie that are loaded later.
        limits: what is taken.
        owners: accounts on the Hugging Face hub whose artifacts may be loaded later.
    """

    def __init__(
        self,
        runtime: Runtime,
        roots: Sequence[Path] = (),
        limits: Limits | None = None,
        owners: Sequence[str] = (),
    ) -> None:
        self.runtime, self.limits, self.owners = runtime, limits or Limits(), tuple(owners)
        self.roots = [root.resolve() for root in roots]
        self.figures = Figures(self)
        self.scheduler = Scheduler(runtime.documents, self.limits, self.figures.batch.observe)
        self.closing = False
        self._changing = threading.Lock()

    def loaded(self, names: Sequence[str]) -> dict[str, Together]:
        """What answers under these names.

        Raises:
            Unknown: one is not loaded; the message names the nearest.
        """
        found = {}
        for name in names:
            try:
                found[name] = self.runtime.served(name)
            except SoftpromptError:
                raise self._unknown(name) from None
        return found

    def _unknown(self, name: str) -> Unknown:
        return Unknown(f"no artifact {name[:80]!r} is loaded{suggest(name[:200], self.runtime.names)}")

    def submit(self, names: Sequence[str], texts: Sequence[str | Mapping[str, Any]], cut: bool) -> Request:
        """Queue texts for artifacts.

        Raises:
            Unknown, DataError, TooLong, Busy: see there.
        """
        request = prepared(self.loaded(names), texts, time.monotonic() + self.limits.seconds, cut)
        self.scheduler.submit(request)
        return request

    def check_open(self) -> None:
        """
        Raises:
            Stopping: the server is about to end, or nothing would be answered any more.
        """
        if self.closing or not self.scheduler.alive:
            raise Stopping

    def add(self, name: str, folder: Path) -> dict[str, Any]:
        """Load an artifact, or another version of it.

        Raises:
            ArtifactError: it is damaged, or its base is not here.
        """
        with self._changing:
            self.runtime.add(name, folder)
            return self.about(name)

    def remove(self, name: str) -> None:
        """Forget an artifact; requests under way finish with it.

        Raises:
            Unknown: no such name.
        """
        with self._changing:
            self.loaded([name])
            self.runtime.remove(name)

    def models(self) -> list[dict[str, Any]]:
        """Bases and artifacts as `/v1/models` lists them; those that go meanwhile are left out."""
        found = [{"id": base.name, "object": "model", "owned_by": "base"} for base in self.runtime.bases]
        for name in self.runtime.names:
            with contextlib.suppress(DataError):
                found.append(self.about(name))
        return found

    def model(self, name: str) -> dict[str, Any]:
        """One of them; an artifact goes before a base of its name.

        Raises:
            Unknown: no such name.
        """
        listed = {one["id"]: one for one in self.models()}
        if name not in listed:
            raise self._unknown(name)
        return listed[name]

    def about(self, name: str) -> dict[str, Any]:
        """An artifact as `/v1/models` lists it.

        Raises:
            DataError: no such name.
        """
        served = self.runtime.served(name)
        first = served.prompts[0]
        return {
            "id": name,
            "object": "model",
            "owned_by": "softprompt",
            "parent": first.base.name,
            "type": served.task.spec.type,
            "method": first.method.spec.name if len(served.prompts) == 1 else "ensemble",
            "fields": sorted(served.task.fields),
        }

    def abandon(self) -> None:
        """Refuse whatever waits or is under way: the time to finish it is over."""
        self.closing = True
        self.scheduler.abandon(Stopping)

    def close(self, seconds: float) -> bool:
        """Take no new request and finish those under way; whether that was done in time."""
        self.closing = True
        return self.scheduler.close(seconds)


class Figures:
    """What `/metrics` shows."""

    def __init__(self, service: Service) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("softprompt_requests", "Requests.", ["route", "status"], registry=registry)
        self.seconds = Histogram("softprompt_request_seconds", "Time of a request.", ["route"], registry=registry)
        self.batch = Histogram(
            "softprompt_batch_answers",
            "Answers that ran together.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
            registry=registry,
        )

        def gauge(name: str, text: str, value: Any) -> None:
            Gauge(f"softprompt_{name}", text, registry=registry).set_function(value)

        state = service.runtime.documents
        gauge("queue_answers", "Answers that wait.", lambda: service.scheduler.waiting)
        gauge("artifacts", "Artifacts that are loaded.", lambda: len(service.runtime.names))
        gauge("document_cache_texts", "Texts that are kept.", lambda: state.state.texts)
        gauge("document_cache_bytes", "Bytes of the texts that are kept.", lambda: state.state.nbytes)
        gauge("document_cache_hits", "Texts that were here when they were asked about.", lambda: state.state.hits)
        gauge("document_cache_misses", "Texts that were not.", lambda: state.state.misses)


def artifacts_in(folder: Path) -> dict[str, Path]:
    """Artifacts, runs and ensembles by name: the folder itself, or those that lie in it.

    Raises:
        ArtifactError: there are none.
    """
    inside = [folder] if _holds_artifact(folder) else sorted(one for one in folder.iterdir() if _holds_artifact(one))
    if not inside:
        raise ArtifactError(f"{folder}: holds no artifact, and no folder of one; give the folder of a run")
    if inside != [folder]:  # by the names that they have here: a link may come to lead to the next version
        return {one.name: one for one in inside}
    return {called(folder): folder}


def artifacts_of(folders: Sequence[Path]) -> dict[str, Path]:
    """Artifacts, runs and ensembles of several folders by name (see `artifacts_in`).

    Raises:
        ArtifactError: one of the folders holds none.
        ConfigError: two of one name.
    """
    named: dict[str, Path] = {}
    for folder in folders:
        for name, path in artifacts_in(folder).items():
            if named.setdefault(name, path).resolve() != path.resolve():
                raise ConfigError(
                    f"two artifacts are called {name!r}, {named[name]} and {path}; rename one of the folders"
                )
    return named


def _holds_artifact(folder: Path) -> bool:
    return folder.is_dir() and (artifacts.is_ensemble(folder) or manifest_folder(folder) is not None)


def manifest_folder(folder: Path) -> Path | None:
    """Where the manifest of an artifact, or of a run's, lies; None where there is none."""
    return next((one for one in (folder / "artifact", folder) if (one / "manifest.json").is_file()), None)
