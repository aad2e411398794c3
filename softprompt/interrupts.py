"""Ctrl-C, SIGTERM and a closed terminal (SIGHUP): a run ends its step and keeps its state; a second signal ends at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

# SIGHUP: the terminal or the connection is closed; Windows has none
STOPPING = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__)


class Interrupted(KeyboardInterrupt):
    """A signal ended the work.

    Attributes:
        number: of the signal.
        said: what becomes of the work; empty where there is nothing to say.
    """

    def __init__(self, number: int = signal.SIGINT, said: str = "") -> None:
        how = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        super().__init__(f"ended by {how}" + (f"; {said}" if said else ""))
        self.number, self.said = number, said

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int, str]]:
        return type(self), (self.number, self.said)  # it may come from another process


@dataclass
class Asked:
    """Whether a signal has asked for an end: its number, or 0."""

    number: int = 0


@contextlib.contextmanager
def deferred() -> Iterator[Asked]:
    """The time in which the first of the signals is only noted; the next one does what it would have done without us.

    Handlers are the main thread's: elsewhere nothing changes. Those of the program around us are left alone as well.
    """
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    ours = {number: handler for number, handler in before.items() if _is_plain(handler)}

    def put_back() -> None:
        for number, handler in ours.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        asked.number = number
        put_back()

    for number in ours:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        put_back()


@contextlib.contextmanager
def explained(said: Callable[[], str]) -> Iterator[None]:
    """Let an interruption say what becomes of the work, if nothing within knows better."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if isinstance(stop, Interrupted) and stop.said:
            raise
        raise Interrupted(getattr(stop, "number", signal.SIGINT), said()) from None


def raise_interrupted(number: int, frame: FrameType | None) -> None:
    """A handler that ends what runs, so that its `finally` clauses are heard; the signal after it ends the process."""
    for each in STOPPING:
        signal.signal(each, signal.SIG_DFL)
    raise Interrupted(number)


def _is_plain(handler: Any) -> bool:
    """Python's own handler, the system's, or ours: not one that the program around us has set, nor an ignored signal."""
    return handler in (signal.default_int_handler, signal.SIG_DFL, raise_interrupted)
