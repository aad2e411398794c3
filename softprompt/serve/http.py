"""The routes: what comes in over HTTP becomes a request of the service, and each refusal one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ..artifact import folder_of
from ..artifact.hub import Address, is_hub
from ..errors import DataError
from ..version import __version__
from .bodies import Answers, Model, Models, NewArtifact, Question
from .middleware import Bounded, Headed, Logged
from .openai import routes
from .page import page
from .refusals import problems, register
from .request import check_length
from .service import Service
from .tokens import bearer, check_tokens, nobody
from .waiting import waited

_ROUTES = {"/v1/classify": ("classification", "choice", "multilabel"), "/v1/extract": ("span", "tagging")}
_WRONG_ROUTE = {"/v1/classify": "chooses labels", "/v1/extract": "finds spans or tags"}
_ASKED = (404, 408, 413, 422, 429, 500, 503, 504)  # how a route that asks the base may refuse


def create_app(service: Service, token: str | None = None, admin_token: str | None = None) -> FastAPI:
    """The application.

    Args:
        token: requests must bring it as a bearer token; None: nobody needs one.
        admin_token: for loading and removing artifacts; None: nobody may.

    Raises:
        ConfigError: see `check_tokens`.
    """
    check_tokens(token, admin_token)
    app = FastAPI(title="softprompt", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(Bounded, service=service)  # the last one that is added is the outermost
    app.add_middleware(Headed)
    app.add_middleware(Logged, service=service)
    register(app)
    known = [] if token is None else [Depends(bearer(token, "TOKEN"))]
    open_to = () if token is None else (401,)
    asked: dict[str, Any] = {"dependencies": known, "responses": problems(*open_to, *_ASKED)}

    @app.post("/v1/classify", response_model=Answers, response_model_exclude_unset=True, **asked)
    async def classify(question: Question) -> dict[str, Any]:
        """Labels with their probabilities."""
        return await _answers(service, question, "/v1/classify")

    @app.post("/v1/extract", response_model=Answers, response_model_exclude_unset=True, **asked)
    async def extract(question: Question) -> dict[str, Any]:
        """Spans and tags."""
        return await _answers(service, question, "/v1/extract")

    app.include_router(routes(service), **asked)
    _models(app, service, {"dependencies": known, "responses": problems(*open_to)})
    _administration(app, service, admin_token)
    _watching(app, service, {"dependencies": known, "responses": problems(*open_to)})

    @app.get("/", response_class=HTMLResponse)
    def index() -> str:
        """A page to try it."""
        return page(secret=token is not None)

    return app


def _models(app: FastAPI, service: Service, known: dict[str, Any]) -> None:
    """What may be asked."""

    @app.get("/v1/models", response_model=Models, response_model_exclude_unset=True, **known)
    def models() -> dict[str, Any]:
        """Bases and artifacts; an artifact names its base as `parent`."""
        return {"object": "list", "data": service.models()}

    responses = {**known["responses"], **problems(404)}

    @app.get(
        "/v1/models/{name:path}",
        response_model=Model,
        response_model_exclude_unset=True,
        **{**known, "responses": responses},
    )
    def model(name: str) -> dict[str, Any]:
        """One of them."""
        return service.model(name)


def _administration(app: FastAPI, service: Service, token: str | None) -> None:
    """Artifacts that come and go."""
    admin = Depends(nobody if token is None else bearer(token, "ADMIN-TOKEN"))
    closed = 403 if token is None else 401
    load_refused = problems(closed, 408, 413, 422, 500)

    @app.post("/v1/artifacts", dependencies=[admin], status_code=201, response_model=Model, responses=load_refused)
    def load(new: NewArtifact) -> dict[str, Any]:
        """Load an artifact, or another version of it."""
        return service.add(new.name, _inside(new.folder, service))

    @app.delete("/v1/artifacts/{name:path}", dependencies=[admin], status_code=204, responses=problems(closed, 404))
    def unload(name: str) -> None:
        """Forget an artifact; requests under way finish with it."""
        service.remove(name)


def _watching(app: FastAPI, service: Service, known: dict[str, Any]) -> None:
    """What a balancer and Prometheus ask."""

    @app.get("/healthz")
    def healthy() -> dict[str, str]:
        """The process is there."""
        return {"status": "ok"}

    @app.get("/readyz", responses=problems(503))
    def ready() -> dict[str, str]:
        """Requests are taken."""
        service.check_open()
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse, **known)
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
