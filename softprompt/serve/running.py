"""A server process: it listens, follows folders, and stops without losing a request."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import uvicorn

from ..errors import ConfigError, SoftpromptError
from ..storage import digest_of
from .http import create_app
from .middleware import access
from .service import Service, artifacts_in, manifest_folder

EVERY = 1.0  # seconds between looks at the folders


class _Server(uvicorn.Server):
    """uvicorn's, with our signals: SIGTERM ends it with exit code 0.

    Attributes:
        stopped: by `time.monotonic`, when it was told to stop; None: it was not.
    """

    stopped: float | None = None

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first SIGTERM or SIGINT; at the second at once."""

        def stop(*_: Any) -> None:
            self.force_exit = self.should_exit
            self.should_exit = self._service.closing = True
            self.stopped = self.stopped or time.monotonic()

        before = {which: signal.signal(which, stop) for which in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)


def run(
    service: Service,
    host: str,
    port: int,
    token: str | None = None,
    admin_token: str | None = None,
    grace: float = 30.0,
    told: Callable[[str], object] = print,
) -> None:
    """Serve until SIGTERM or SIGINT. Requests under way finish, for at most `grace` seconds.

    Args:
        port: 0 takes a free one.
        told: called with the address, once it is open.

    Raises:
        ConfigError: the address cannot be used.
    """
    _log_access()
    opened = _listen(host, port)
    told(f"http://{_shown(host)}:{opened.getsockname()[1]}")
    app = create_app(service, token, admin_token)
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=max(1, int(grace)))
    server = _Server(config, service)
    try:
        server.run([opened])
    finally:
        spent = 0.0 if server.stopped is None else time.monotonic() - server.stopped
        service.close(max(0.0, grace - spent))
        opened.close()


def follow(service: Service, folders: Mapping[str, Path], roots: list[Path], note: Callable[[str], object]) -> None:
    """Load what appears or changes in the roots, and remove what goes, in a thread of its own.

    Args:
        folders: what is loaded now, by name.
        note: called with a line for each change.
    """
    seen = {name: _version(folder) for name, folder in folders.items()}
    doubled: set[Path] = set()

    def look() -> None:
        here: dict[str, Path] = {}
        for name, folder in (one for root in roots for one in _inside(root).items()):
            first = here.setdefault(name, folder)
            if first.resolve() != folder.resolve() and folder not in doubled:
                doubled.add(folder)
                note(f"{folder} is not loaded: {first} is called {name}, too; rename one of them")
        for name, folder in here.items():
            version = _version(folder)
            if version is None or seen.get(name) == version:
                continue
            try:
                service.add(name, folder)
                note(f"loaded {name}")
            except Exception as error:  # whatever is wrong with it, the version before goes on answering
                note(f"{name}: {error}")
            seen[name] = version
        for name in [name for name in seen if name not in here]:
            del seen[name]
            with contextlib.suppress(SoftpromptError):
                service.remove(name)
                note(f"removed {name}")

    def watch() -> None:
        wait = threading.Event()
        while not service.closing:
            wait.wait(EVERY)
            try:
                look()
            except Exception as error:  # such as a folder that goes while it is read; the next look sees the rest
                note(f"the folders could not be looked at ({error})")

    threading.Thread(target=watch, name="softprompt watch", daemon=True).start()


def _inside(root: Path) -> dict[str, Path]:
    try:
        return artifacts_in(root)
    except (SoftpromptError, OSError):
        return {}


def _version(folder: Path) -> str | None:
    """Changes with any file that an artifact consists of; None while it is not there."""
    held = manifest_folder(folder) or folder
    try:
        files = sorted(one for one in held.rglob("*") if one.is_file())
        return digest_of([[str(one.relative_to(held)), *_stamp(one)] for one in files])
    except OSError:
        return None


def _stamp(file: Path) -> tuple[int, int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        opened = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror or error}); use another --host or --port"
        ) from None
    opened.setblocking(False)
    return opened


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _log_access() -> None:
    """One JSON line a request on stderr."""
    if not access.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        access.addHandler(handler)
        access.propagate = False
    access.setLevel(logging.INFO)
