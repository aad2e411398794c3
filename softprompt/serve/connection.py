"""One connection: how long a client may take to ask and to read, so that none is held open for nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """uvicorn's, with bounds that it has not.

    A request's head must come whole in time, however slowly it trickles. What the client sends behind an answer is not read
    for longer. A client that stops reading its answer is cut off. What is no HTTP gets a refusal like any other.

    Args:
        seconds: for each of them. How long a body may take is bounded by the application.
    """

    def __init__(self, *given: Any, seconds: float = 60.0, **settings: Any) -> None:
        super().__init__(*given, **settings)
        self._seconds = seconds
        self._asking: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """The first request may take so long."""
        super().connection_made(transport)
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """No timer is left behind."""
        super().connection_lost(exc)
        self._stop_asking()
        self._stop_reading()

    def data_received(self, data: bytes) -> None:
        """A byte more does not give a request more time."""
        super().data_received(data)
        self._wait_for_request()

    def on_response_complete(self) -> None:
        """The next request may take so long, and the rest of this one."""
        super().on_response_complete()
        self._wait_for_request()
        if self.transport.is_closing():
            self._wait_for_reader()

    def pause_writing(self) -> None:
        """The client reads slower than the answer comes."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """The client reads on."""
        super().resume_writing()
        self._stop_reading()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that is not used, also where the client never reads the rest of its answer."""
        super().timeout_keep_alive_handler()
        self._wait_for_reader()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is refused in JSON, unless an answer is under way."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
            return
        body = json.dumps({"error": "this is no HTTP request that can be read; see RFC 9112"}).encode()
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _wait_for_request(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_asking()
        elif self._asking is None and not self.transport.is_closing():
            self._asking = self.loop.call_later(self._seconds, self._give_up)

    def _wait_for_reader(self) -> None:
        if self._reading is None:
            left = self.transport.get_write_buffer_size()
            self._reading = self.loop.call_later(self._seconds, self._look_at_reader, left)

    def _look_at_reader(self, before: int) -> None:
        """Cut off a client that has read nothing since there were so many bytes left."""
        self._reading = None
        if self.transport.get_write_buffer_size() >= before:
            self.transport.abort()
        else:
            self._wait_for_reader()

    def _give_up(self) -> None:
        self._asking = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

    def _stop_asking(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
