"""How the server says no: a status, one sentence that says what to do, and the headers that HTTP asks for (RFC 9110)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.requests import Request as HttpRequest
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Send

from ..artifact.files import one_line
from ..errors import SoftpromptError
from .bodies import Problem
from .request import TooLong
from .scheduler import Busy, Late
from .service import Stopping, Unknown

FAULT = "the server has failed with this request; its log says why"
STOPPING = "the server is stopping; ask another one"
LATE = "the answer took too long; send fewer texts, ask for fewer tokens, or raise --timeout"
log = logging.getLogger("softprompt.serve")

_NO_FIELDS = (
    "body",
    "constrained-str",
    "dict[str,any]",
)  # what pydantic names besides fields: where, and which of two kinds
_PLAIN = {
    404: ("Not Found", "there is no such path; see /openapi.json"),
    405: ("Method Not Allowed", "this path takes another method; see the header Allow, or /openapi.json"),
}
_AGAIN = {"Retry-After": "1"}
_CLOSE = {"Connection": "close"}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the schema says of a route's refusals."""
    return {status: {"model": Problem} for status in sorted(statuses)}


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A refusal. Its sentence may quote what was sent, so all that could not be shown is escaped."""
    return JSONResponse({"error": one_line(message, 1000)}, status, headers)


def status_of(error: Exception) -> tuple[int, str, Mapping[str, str]]:
    """Status, sentence and headers of an error; of one that is our fault nothing that says what it was."""
    if isinstance(error, Stopping):
        return 503, STOPPING, _AGAIN
    if isinstance(error, Busy):
        return 429, "too many requests wait; try again in a second", _AGAIN
    if isinstance(error, Late):
        return 504, LATE, {}
    if isinstance(error, SoftpromptError):
        return 404 if isinstance(error, Unknown) else 413 if isinstance(error, TooLong) else 422, str(error), {}
    return 500, FAULT, {}


def register(app: FastAPI) -> None:
    """Let the application answer so, whatever is raised in it."""

    @app.exception_handler(StarletteHTTPException)
    async def _http(_: HttpRequest, error: StarletteHTTPException) -> JSONResponse:
        if error.status_code == 400:  # FastAPI's, of a body that is no UTF-8, or holds a number of thousands of digits
            return refusal(422, "the body: is no JSON that can be read; send UTF-8, and long numbers as text")
        plain, advice = _PLAIN.get(error.status_code, ("", ""))
        headers = dict(error.headers or {})
        if "GET" in headers.get("Allow", ""):
            headers["Allow"] += ", HEAD"  # see `middleware.Headed`
        return refusal(error.status_code, advice if error.detail == plain else error.detail, headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: HttpRequest, error: RequestValidationError) -> JSONResponse:
        return refusal(422, _sentence(error.errors()[0]))

    async def ours(_: HttpRequest, error: Exception) -> JSONResponse:
        return refusal(*status_of(error))

    for kind in (SoftpromptError, Stopping, Busy, Late):
        app.add_exception_handler(kind, ours)


async def send_refusal(send: Send, status: int, message: str) -> None:
    """A refusal from outside of the application, behind which the connection is closed where the rest is not wanted."""
    headers = _AGAIN if status == 503 else _CLOSE if status in (408, 413) else {}
    response = refusal(status, message, headers)
    await send({"type": "http.response.start", "status": status, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body})


def error_event(error: Exception) -> str:
    """An error in a stream, as OpenAI's clients read it: they raise it with its message. Nothing follows it."""
    status, message, _ = status_of(error)
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = {"message": one_line(message, 1000), "type": kind, "param": None, "code": status}
    return f"data: {json.dumps({'error': body}, ensure_ascii=False)}\n\n"


def _sentence(problem: dict[str, Any]) -> str:
    """One problem of a body in one sentence."""
    where = ".".join(str(step)[:200] for step in problem["loc"] if step not in _NO_FIELDS) or "the body"
    what = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {what[:1].lower()}{what[1:]}; see /openapi.json"
