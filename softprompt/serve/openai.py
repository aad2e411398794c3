"""OpenAI-shaped routes: clients that speak to an OpenAI server speak to artifacts and bases here."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from ..answers import Outcome
from ..errors import DataError
from .bare import bare_names, bare_prompt
from .openai_bodies import ChatCompletion, Completion, Turned, Written
from .refusals import error_event, log, status_of
from .request import Writing, check_length, written
from .scheduler import Late
from .service import Service
from .waiting import waited

_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}


@dataclass(frozen=True)
class _Shape:
    """How one of the routes shows a text, whole and in pieces."""

    kind: str
    prefix: str
    whole: Callable[[str], dict[str, Any]]
    piece: Callable[[str], dict[str, Any]]

    def body(self, name: str, model: str, choice: dict[str, Any], chunk: bool = False) -> dict[str, Any]:
        kind = "chat.completion.chunk" if chunk and self.prefix == "chatcmpl" else self.kind
        return {"id": name, "object": kind, "created": int(time.time()), "model": model, "choices": [choice]}


_TEXT = _Shape("text_completion", "cmpl", lambda text: {"text": text}, lambda text: {"text": text})
_CHAT = _Shape(
    "chat.completion",
    "chatcmpl",
    lambda text: {"message": {"role": "assistant", "content": text}},
    lambda text: {"delta": {"content": text} if text else {}},
)


def routes(service: Service) -> APIRouter:
    """The two routes."""
    router = APIRouter()

    @router.post("/v1/completions", response_model=Written, response_model_exclude_unset=True, responses=_STREAM)
    async def completions(asked: Completion) -> Any:
        """A text behind a prompt."""
        return await _answered(service, asked, _TEXT)

    @router.post("/v1/chat/completions", response_model=Turned, response_model_exclude_unset=True, responses=_STREAM)
    async def chat(asked: ChatCompletion) -> Any:
        """The assistant's next turn."""
        return await _answered(service, asked, _CHAT)

    return router


async def _answered(service: Service, asked: Completion | ChatCompletion, shape: _Shape) -> Any:
    service.check_open()
    name = f"{shape.prefix}-{uuid.uuid4().hex}"
    if not asked.stream:
        request = await run_in_threadpool(_begin, service, asked, None)
        if isinstance(request, str):  # a label, which is not written token by token
            return shape.body(name, asked.model, {"index": 0, **shape.whole(request), "finish_reason": "stop"})
        await waited(service, request)
        outcome = request.outcome.result()
        choice = {"index": 0, **shape.whole(str(outcome.predicted)), "finish_reason": _reason(outcome)}
        return {**shape.body(name, asked.model, choice), "usage": _usage(request)}
    pieces: asyncio.Queue[str | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def tell(text: str | None) -> None:
        loop.call_soon_threadsafe(pieces.put_nowait, text)

    request = await run_in_threadpool(_begin, service, asked, tell)
    if isinstance(request, str):
        tell(request)
        tell(None)
    else:
        request.outcome.add_done_callback(lambda _: tell(None))
    events = _events(service, request, pieces, name, asked.model, shape)
    return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-store"})


async def _events(
    service: Service, request: Writing | str, pieces: asyncio.Queue[str | None], name: str, model: str, shape: _Shape
) -> AsyncIterator[str]:
    """Server-sent events: the pieces of the text, why it ended, and OpenAI's end mark; or an error, and no mark."""
    end = time.monotonic() + service.limits.seconds

    def event(text: str, reason: str | None = None) -> str:
        choice = {"index": 0, **shape.piece(text), "finish_reason": reason}
        return f"data: {json.dumps(shape.body(name, model, choice, chunk=True), ensure_ascii=False)}\n\n"

    done = False
    try:
        while (piece := await asyncio.wait_for(pieces.get(), max(0.0, end - time.monotonic()))) is not None:
            yield event(piece)
        done = True
        reason = "stop" if isinstance(request, str) else _reason(request.outcome.result())
        yield event("", reason)
        yield "data: [DONE]\n\n"
    except (TimeoutError, asyncio.TimeoutError):
        yield error_event(Late())
    except Exception as error:
        if status_of(error)[0] == 500:
            log.exception("a text has failed")
        yield error_event(error)
    finally:  # also where the client is gone
        if not done and not isinstance(request, str):
            service.scheduler.cancel(request)


def _begin(service: Service, asked: Completion | ChatCompletion, tell: Callable[[str], object] | None) -> Writing | str:
    """Queue a text to be written; or, of an artifact that chooses or finds its answers, the answer.

    Raises:
        Unknown, DataError, TooLong, Busy: see there.
    """
    if asked.model in bare_names(service.runtime):
        chat = isinstance(asked, ChatCompletion)
        one = bare_prompt(service.runtime, asked.model, chat)
        values = {"messages": _turns(asked)} if chat else {"prompt": asked.prompt}  # type: ignore[union-attr]
    else:
        one = service.loaded([asked.model])[asked.model]
        values = _values(asked, one.task)
    check_length(service.limits, values)
    deadline = time.monotonic() + service.limits.seconds
    if one.task.spec.type != "generation":
        if asked.changes:
            raise DataError(
                f"{asked.model!r} is of type {one.task.spec.type}, so it writes nothing that {', '.join(asked.changes)} could "
                "change; leave that out"
            )
        request = service.submit([asked.model], [values], cut=False)
        try:
            answer = request.outcome.result(service.limits.seconds)[0]
        except FutureTimeout:
            service.scheduler.cancel(request)
            raise Late from None
        return str(answer.predicted) if not answer.shown else json.dumps(answer.shown, ensure_ascii=False)
    writing = written(asked.model, one, values, deadline, asked.changes, tell)
    service.scheduler.submit(writing)
    return writing


def _values(asked: Completion | ChatCompletion, task: Any) -> dict[str, Any]:
    """The fields of a row for an artifact.

    Raises:
        DataError: its template reads something else.
    """
    if isinstance(asked, ChatCompletion) and task.spec.template.messages:
        return {task.spec.template.messages: _turns(asked)}
    if (field := task.only_field) is None:
        fields = ", ".join(map(repr, sorted(task.fields)))
        raise DataError(f"{asked.model!r} reads {fields}, which one text cannot give; use softprompt predict")
    if isinstance(asked, Completion):
        return {field: asked.prompt}
    if len(asked.messages) > 1 or asked.messages[0].role != "user":
        raise DataError(f"{asked.model!r} reads one text; send one message of the user")
    return {field: asked.messages[0].content}


def _turns(asked: Completion | ChatCompletion) -> list[dict[str, str]]:
    assert isinstance(asked, ChatCompletion)
    return [turn.model_dump() for turn in asked.messages]


def _reason(outcome: Outcome) -> str:
    return "length" if outcome.cut else "stop"


def _usage(request: Writing) -> dict[str, int]:
    """Tokens that were read and written; learned ones count as they stand in the row."""
    prompt, example = request.answer.prompt, request.answer.example
    read = len(prompt.bound.prefix_ids) + len(example.text) + len(prompt.bound.behind) + prompt.method.length
    wrote = len(request.answer.ids)
    return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}
