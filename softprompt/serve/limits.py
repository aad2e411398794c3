"""What a server takes before it says no."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of one server.

    Attributes:
        body: bytes of a request.
        characters: of one text.
        answers: of one request, artifacts times texts.
        queue: answers that wait; one more is refused until some have run.
        seconds: from a request's arrival to its answer.
        wait_ms: how long a batch waits for more requests when nothing runs. 0: not at all.
        batch: answers that run together at most.
        streams: answers that are written token by token at once, those that wait among them.
    """

    body: int = 4_000_000
    characters: int = 400_000
    answers: int = 512
    queue: int = 2048
    seconds: float = 60.0
    wait_ms: float = 0.0
    batch: int = 256
    streams: int = 64
