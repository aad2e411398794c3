"""The routes: what comes in over HTTP becomes a request of the service, and each refusal one sentence."""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.requests import Request as HttpRequest
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException as StarletteHTTPException

from ..artifact import folder_of
from ..artifact.hub import Address, is_hub
from ..errors import ConfigError, DataError, SoftpromptError
from ..version import __version__
from .bodies import Answers, NewArtifact, Problem, Question
from .middleware import Bounded, Logged
from .openai import FAULT, routes
from .page import page
from .request import TooLong, check_length
from .scheduler import Busy, Late
from .service import Service, Stopping, Unknown
from .waiting import waited

_ROUTES = {"/v1/classify": ("classification", "choice", "multilabel"), "/v1/extract": ("span", "tagging")}
_WRONG_ROUTE = {"/v1/classify": "chooses labels", "/v1/extract": "finds spans or tags"}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (401, 404, 413, 422, 429, 503, 504)
}


def create_app(service: Service, token: str | None = None, admin_token: str | None = None) -> FastAPI:
    """The application.

    Args:
        token: requests must bring it as a bearer token; None: nobody needs one.
        admin_token: for loading and removing artifacts; None: nobody may.

    Raises:
        ConfigError: a token that nobody could send, or that is empty, so that everybody would.
    """
    for secret in (token, admin_token):
        if secret is not None and not re.fullmatch("[!-~]+", secret):
            raise ConfigError("a token is empty, or holds what no header can; use printable ASCII without spaces")
    app = FastAPI(title="softprompt", version=__version__, docs_url=None, redoc_url=None, responses=_PROBLEMS)
    app.add_middleware(Bounded, limit=service.limits.body)
    app.add_middleware(Logged, figures=service.figures)
    _refusals(app)
    known = Depends(_bearer(token, "Authorization: Bearer TOKEN"))
    admin = Depends(_bearer(admin_token, "Authorization: Bearer ADMIN-TOKEN", closed=True))

    @app.post("/v1/classify", response_model=Answers, response_model_exclude_unset=True, dependencies=[known])
    async def classify(question: Question) -> dict[str, Any]:
        """Labels with their probabilities."""
        return await _answers(service, question, "/v1/classify")

    @app.post("/v1/extract", response_model=Answers, response_model_exclude_unset=True, dependencies=[known])
    async def extract(question: Question) -> dict[str, Any]:
        """Spans and tags."""
        return await _answers(service, question, "/v1/extract")

    @app.get("/v1/models", dependencies=[known])
    def models() -> dict[str, Any]:
        """Bases and artifacts; an artifact names its base as `parent`."""
        bases = [{"id": base.name, "object": "model", "owned_by": "base"} for base in service.runtime.bases]
        return {"object": "list", "data": [*bases, *(service.about(name) for name in service.runtime.names)]}

    app.include_router(routes(service), dependencies=[known])
    _administration(app, service, admin)
    _watching(app, service, known)

    @app.get("/", response_class=HTMLResponse)
    def index() -> str:
        """A page to try it."""
        return page(secret=token is not None)

    return app


def _administration(app: FastAPI, service: Service, admin: Any) -> None:
    """Artifacts that come and go."""

    @app.post("/v1/artifacts", dependencies=[admin], status_code=201)
    def load(new: NewArtifact) -> dict[str, Any]:
        """Load an artifact, or another version of it."""
        return service.add(new.name, _inside(new.folder, service))

    @app.delete("/v1/artifacts/{name:path}", dependencies=[admin], status_code=204)
    def unload(name: str) -> None:
        """Forget an artifact; requests under way finish with it."""
        service.remove(name)


def _watching(app: FastAPI, service: Service, known: Any) -> None:
    """What a balancer and Prometheus ask."""

    @app.get("/healthz")
    def healthy() -> dict[str, str]:
        """The process is there."""
        return {"status": "ok"}

    @app.get("/readyz")
    def ready() -> dict[str, str]:
        """Requests are taken."""
        service.check_open()
        return {"status": "ok"}

    @app.get("/metrics", dependencies=[known])
    def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(service.figures.registry), media_type=CONTENT_TYPE_LATEST)


async def _answers(service: Service, question: Question, route: str) -> dict[str, Any]:
    names, texts = question.names, question.rows
    _check_size(service, names, texts)
    for name, one in service.loaded(names).items():
        if one.task.spec.type not in _ROUTES[route]:
            other = next((path for path, kinds in _ROUTES.items() if one.task.spec.type in kinds), None)
            advice = f"use {other or '/v1/completions'}"
            raise DataError(f"{name!r} is of type {one.task.spec.type}, and {route} {_WRONG_ROUTE[route]}; {advice}")
    service.check_open()
    request = await run_in_threadpool(service.submit, names, texts, question.truncate)
    await waited(service, request)
    per_text = len(names)
    results = [
        {"index": place // per_text, "truncated": answer.truncated, **answer.as_dict()}
        for place, answer in enumerate(request.predictions())
    ]
    took = request.timing
    timing = {key: 1000 * getattr(took, key) for key in ("queued", "read", "answered")}
    return {"results": results, "timing_ms": timing}


def _check_size(service: Service, names: list[str], texts: list[Any]) -> None:
    limits = service.limits
    if len(names) * len(texts) > limits.answers:
        raise HTTPException(
            413,
            f"{len(texts)} texts for {len(names)} artifacts are more than {limits.answers} answers; send fewer at once",
        )
    for text in texts:
        check_length(limits, text)


def _inside(folder: str, service: Service) -> Path:
    """A folder in one of those that the server was started with, or one that is downloaded for an account of them.

    Raises:
        DataError: it lies elsewhere.
        ArtifactError: it cannot be downloaded.
    """
    if is_hub(folder):
        # who may load artifacts does not choose whom this machine's owner trusts, nor what its token may read
        if Address.parse(folder).owner not in service.owners:
            raise DataError(f"{folder[:200]!r} is of an account that the server was not started with; add --hub OWNER")
        return folder_of(folder)
    try:
        asked = Path(folder).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL; links that lead in a circle
        raise DataError(f"folder {folder[:200]!r} cannot be a folder ({error}); give another") from None
    if not any(asked.is_relative_to(root) for root in service.roots):
        roots = ", ".join(str(root) for root in service.roots)
        raise DataError(f"folder {folder[:200]!r} lies outside of what the server was started with ({roots[:400]})")
    return asked


def _bearer(token: str | None, what: str, closed: bool = False) -> Callable[..., Awaitable[None]]:
    """A dependency that checks the bearer token.

    Args:
        closed: without a token nobody may pass; else everybody may.
    """

    async def check(authorization: Annotated[str | None, Header()] = None) -> None:
        if token is None and not closed:
            return
        given = (authorization or "").removeprefix("Bearer ").encode()
        # in constant time: how long it takes says nothing of the token
        if token is None or not hmac.compare_digest(given, token.encode()):
            missing = "start the server with --admin-token" if token is None else f"send the header {what}"
            raise HTTPException(401, f"this needs a token; {missing}")

    return check


def _refusals(app: FastAPI) -> None:
    """Every refusal is {"error": one sentence}."""

    def told(status: int, message: str, **headers: str) -> JSONResponse:
        return JSONResponse({"error": message}, status, headers)

    @app.exception_handler(StarletteHTTPException)
    async def _http(_: HttpRequest, error: StarletteHTTPException) -> JSONResponse:
        advice = {
            404: "there is no such path; see /openapi.json",
            405: "this path takes another method; see /openapi.json",
        }
        plain = error.detail in ("Not Found", "Method Not Allowed")
        return told(error.status_code, advice.get(error.status_code, error.detail) if plain else error.detail)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: HttpRequest, error: RequestValidationError) -> JSONResponse:
        return told(422, _sentence(error.errors()[0]))

    @app.exception_handler(SoftpromptError)
    async def _ours(_: HttpRequest, error: SoftpromptError) -> JSONResponse:
        status = 404 if isinstance(error, Unknown) else 413 if isinstance(error, TooLong) else 422
        return told(status, str(error))

    @app.exception_handler(Exception)
    async def _fault(_: HttpRequest, error: Exception) -> JSONResponse:
        return told(500, FAULT)

    @app.exception_handler(Stopping)
    async def _stopping(_: HttpRequest, error: Stopping) -> JSONResponse:
        return told(503, "the server is stopping; ask another one")

    @app.exception_handler(Busy)
    async def _busy(_: HttpRequest, error: Busy) -> JSONResponse:
        return told(429, "too many requests wait; try again in a second", **{"Retry-After": "1"})

    @app.exception_handler(Late)
    async def _late(_: HttpRequest, error: Late) -> JSONResponse:
        return told(504, "the answer took too long; send fewer texts, or raise --timeout")


_NO_FIELDS = (
    "body",
    "constrained-str",
    "dict[str,any]",
)  # what pydantic names besides fields: where, and which of two kinds


def _sentence(problem: dict[str, Any]) -> str:
    """One problem of a body in one sentence."""
    where = ".".join(str(step) for step in problem["loc"] if step not in _NO_FIELDS) or "the body"
    what = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {what[:1].lower()}{what[1:]}; see /openapi.json"
