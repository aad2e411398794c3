"""What OpenAI's completions and chat completions hold, as far as it means something here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from .bodies import Body, Name

Stop = Annotated[str, Field(min_length=1)]


class _Asked(Body):
    """What both ask for. Fields that nothing here knows are refused, so none is ignored in silence.

    Attributes:
        model: an artifact, or a base.
        max_tokens: longest answer (null: as the artifact's task says).
        temperature: 0 takes the likeliest token; above 0 each token is drawn.
        top_p: draw from the likeliest tokens that together have this probability.
        seed: for the draws. Equal requests with a seed get equal answers.
        stop: an answer ends before the first of these.
        stream: send the text in pieces, as server-sent events.
        n: one answer.
        user: read and forgotten.
    """

    model: Name
    max_tokens: int | None = Field(default=None, ge=1, le=100_000)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0)
    stop: Stop | Annotated[list[Stop], Field(fail_fast=True)] | None = None
    stream: bool = False
    n: Literal[1] = 1
    user: str | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """Settings of generation that it asks for."""
        found: dict[str, Any] = {}
        if self.max_tokens is not None:
            found["max_new_tokens"] = self.max_tokens
        if self.stop is not None:
            found["stop"] = [self.stop] if isinstance(self.stop, str) else self.stop
        if self.temperature == 0:
            return {**found, "do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": None, "seed": 0}
        if self.temperature is not None:
            found |= {"do_sample": True, "temperature": self.temperature}
        drawn = {"top_p": self.top_p, "seed": self.seed}
        return {**found, **{key: value for key, value in drawn.items() if value is not None}}


class Completion(_Asked):
    """`/v1/completions`.

    Attributes:
        prompt: the text that an artifact's template reads; of a base, what it goes on behind.
    """

    prompt: Annotated[str, Field(min_length=1)]


class Turn(Body):
    """A turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatCompletion(_Asked):
    """`/v1/chat/completions`.

    Attributes:
        messages: the conversation so far. An artifact whose template reads one text takes the text of a single user turn.
        max_completion_tokens: OpenAI's newer name of `max_tokens`.
    """

    messages: Annotated[list[Turn], Field(fail_fast=True)] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=100_000)

    @property
    def changes(self) -> dict[str, Any]:
        """Settings of generation that it asks for."""
        newer = self.max_completion_tokens
        return {**super().changes, **({} if newer is None else {"max_new_tokens": newer})}


class Usage(BaseModel):
    """Tokens that were read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class _Answer(BaseModel):
    """What both answer. `usage` is left out where nothing was written token by token."""

    id: str
    created: int
    model: str
    usage: Usage | None = None


class _Choice(BaseModel):
    """The only one.

    Attributes:
        finish_reason: `length` where it was cut.
    """

    index: Literal[0]
    finish_reason: Literal["stop", "length"]


class WrittenChoice(_Choice):
    """What was written."""

    text: str


class Written(_Answer):
    """The answer of `/v1/completions`. With `stream` it comes in pieces of this kind."""

    object: Literal["text_completion"]
    choices: list[WrittenChoice]


class Said(BaseModel):
    """A turn of the assistant."""

    role: Literal["assistant"]
    content: str


class TurnedChoice(_Choice):
    """The assistant's next turn."""

    message: Said


class Turned(_Answer):
    """The answer of `/v1/chat/completions`. With `stream` it comes as chunks of OpenAI's shape."""

    object: Literal["chat.completion"]
    choices: list[TurnedChoice]
