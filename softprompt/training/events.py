"""Records of a run: lines of `events.jsonl`, and plain dicts for who listens while it runs."""

from __future__ import annotations

import copy
import json
from typing import Any

from ..errors import SoftpromptError, TrainingError
from ..types import OnEvent, ignore_event


def line_of(event: str, values: dict[str, Any]) -> str:
    """A record as one line of JSON, without the line's end."""
    return json.dumps({"event": event, **values}, ensure_ascii=False, default=str)


def both(first: OnEvent, second: OnEvent) -> OnEvent:
    """What hands each event to two, to each as a dict of its own."""
    if first is ignore_event or second is ignore_event:
        return first if second is ignore_event else second

    def hear(event: dict[str, Any]) -> None:
        second(copy.deepcopy(event))
        first(event)

    return hear


def tell(on_event: OnEvent, event: str, values: dict[str, Any]) -> None:
    """Hand a record over as a dict of its own, with the values that `events.jsonl` holds.

    Raises:
        TrainingError: the callable failed; its exception is the cause.
        SoftpromptError: one of ours that it raised, as it is.
    """
    if on_event is ignore_event:
        return
    try:
        on_event(json.loads(line_of(event, values)))
    except SoftpromptError:
        raise
    except Exception as error:
        at = f" at step {values['step']}" if "step" in values else ""
        raise TrainingError(
            f"on_event failed on the event {event!r}{at} ({type(error).__name__}: {error}), so the run stopped; correct it "
            "and call the run again: it goes on from its last checkpoint"
        ) from error
