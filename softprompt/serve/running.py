"""A server process: it takes its address first, serves, and stops without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import uvicorn

from ..errors import ConfigError
from .connection import Connection
from .http import create_app
from .middleware import access
from .service import Service

SENDING = 1.0  # seconds for the last refusals to be sent
_STEP = 0.05  # seconds between looks at whether the end has come


class Server(uvicorn.Server):
    """uvicorn's, with our signals and our end: SIGTERM ends it with exit code 0.

    Args:
        grace: seconds that requests under way have when it stops. Those that have not finished then are refused.

    Attributes:
        stopped: by `time.monotonic`, when it was told to stop; None: it was not.
    """

    stopped: float | None = None

    def __init__(self, config: uvicorn.Config, service: Service, grace: float) -> None:
        super().__init__(config)
        self._service, self._grace = service, grace

    @property
    def left(self) -> float:
        """Seconds that requests under way still have."""
        return self._grace if self.stopped is None else max(0.0, self.stopped + self._grace - time.monotonic())

    def stop(self, *_: Any) -> None:
        """Take no new requests and end; at the second call without waiting for those under way."""
        self.force_exit = self.should_exit
        self.should_exit = self._service.closing = True
        self.stopped = self.stopped or time.monotonic()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first SIGTERM or SIGINT; at the second at once. Only the main thread can hear them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {which: signal.signal(which, self.stop) for which in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests under way finish. Whoever still waits at the end of the grace gets a refusal, not a cut."""
        ended = asyncio.create_task(self._end())
        await super().shutdown(sockets)
        if self.force_exit:  # uvicorn waits for nobody now
            await ended
            await asyncio.sleep(2 * _STEP)
        ended.cancel()

    async def _end(self) -> None:
        while self.left and not self.force_exit:
            await asyncio.sleep(_STEP)
        self._service.abandon()

    def serve_on(self, opened: socket.socket) -> bool:
        """Serve until it is stopped; whether all that ran has ended then.

        Args:
            opened: where it listens (see `listen`); closed at the end.
        """
        try:
            self.run([opened])
        finally:
            ended = self._service.close(self.left)
            opened.close()
        return ended


def server_of(
    service: Service, token: str | None = None, admin_token: str | None = None, grace: float = 30.0
) -> Server:
    """A server that is not open yet. Its access log goes to stderr.

    Raises:
        ConfigError: see `check_tokens`.
    """
    _log_access()
    config = uvicorn.Config(
        create_app(service, token, admin_token),
        http=partial(Connection, seconds=service.limits.seconds),  # type: ignore[arg-type]  # it is called like the class
        ws="none",
        lifespan="off",  # nothing of ours begins or ends with it
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=math.ceil(grace + SENDING),
    )
    return Server(config, service, grace)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Whoever connects before it is served waits for it.

    Args:
        port: 0 takes a free one.

    Raises:
        ConfigError: the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        opened = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:  # of a name that is none
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on {host}:{port} ({reason}); use another --host or --port") from None
    opened.setblocking(False)
    return opened


def address_of(host: str, opened: socket.socket) -> str:
    """Where a socket can be reached, as a URL."""
    return f"http://{f'[{host}]' if ':' in host else host}:{opened.getsockname()[1]}"


def _log_access() -> None:
    """One JSON line a request on stderr."""
    if not access.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        access.addHandler(handler)
        access.propagate = False
    access.setLevel(logging.INFO)
