"""Around every request: bounds on its body, an id, a line in the access log, and the figures."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import Limits
from .refusals import FAULT, STOPPING, log, send_refusal
from .service import Service

access = logging.getLogger("softprompt.access")
GONE = 499  # no status of HTTP: the client has left before its answer began
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Logged:
    """One JSON line a request. No text and no answer stands in it."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give the request an id, and write its line when it has been answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        name = given if _ID.fullmatch(given) else uuid.uuid4().hex
        began, status = time.perf_counter(), GONE

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", name.encode())]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception:
            log.exception("request %s has failed", name)
            if status != GONE:  # an answer has begun, so its connection is closed before its end
                raise
            await send_refusal(noted, 500, FAULT)
        except asyncio.CancelledError:
            if status != GONE or not self.service.closing:
                raise
            await send_refusal(noted, 503, STOPPING)
        finally:
            self._tell(name, scope, status, time.perf_counter() - began)

    def _tell(self, name: str, scope: Scope, status: int, seconds: float) -> None:
        # a path that we do not know is a client's text, so it is no label and not logged
        route = getattr(scope.get("route"), "path", "unknown")
        self.service.figures.requests.labels(route, str(status)).inc()
        self.service.figures.seconds.labels(route).observe(seconds)
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "id": name,
            "method": scope["method"][:20],
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 1),
        }
        access.info(json.dumps(line))


class Headed:
    """HEAD is answered as GET is, without the body (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask for the same with GET."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def bare(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        inner = {**scope, "method": "GET"}
        try:
            await self.app(inner, receive, bare)
        finally:
            scope.update({key: inner[key] for key in ("route",) if key in inner})


class Bounded:
    """Reads bodies, refuses those that are too large or too slow, and ends what nobody waits for any more."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body up to the limits, then pass it on."""
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        limits = self.service.limits
        try:
            body = await asyncio.wait_for(_body(scope, receive, limits), limits.seconds)
        except (TimeoutError, asyncio.TimeoutError):
            await send_refusal(
                send, 408, f"the body has not come whole within {limits.seconds:g} seconds; send it faster"
            )
        except OverflowError:
            await send_refusal(send, 413, f"the body has more than {limits.body} bytes; send fewer or shorter texts")
        else:
            if body is not None:
                await self._until_gone(scope, body, receive, send)

    async def _until_gone(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application on this body, as long as the client is there."""
        parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        left = asyncio.ensure_future(receive())  # there is no more to come but that the client leaves
        answered = False

        async def whole() -> Message:
            return parts.pop() if parts else await asyncio.shield(left)

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = answered or (message["type"] == "http.response.body" and not message.get("more_body", False))
            await send(message)

        work = asyncio.ensure_future(self.app(scope, whole, noted))
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
            if answered or work.done():
                await work
        finally:
            await _ended(work, left)


async def _body(scope: Scope, receive: Receive, limits: Limits) -> bytes | None:
    """The whole body; None where the client leaves before its end.

    Raises:
        OverflowError: it is larger than the limit, by what it says or by what comes.
    """
    said = dict(scope["headers"]).get(b"content-length", b"")
    if said.isdigit() and int(said[:20]) > limits.body:
        raise OverflowError
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limits.body:
            raise OverflowError
    return bytes(body)


async def _ended(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs, and wait until it has ended. What it raises has been seen, or concerns nobody."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
