"""What accompanies work that takes a while: who hears of it, which processes share it, whether a signal asks for its end."""

from __future__ import annotations

from dataclasses import dataclass, field

from .interrupts import Asked
from .parallel import Processes
from .types import Notice, OnEvent, Progress, ignore_event, ignore_notice, ignore_progress


@dataclass(frozen=True)
class Control:
    """How a run is watched and ended.

    Attributes:
        progress: called with what is being done, and how far it is.
        notice: called with what a person should read now.
        on_event: given each new record of a run.
        parallel: the processes that share the rows (see `parallel.py`); all of them get the same results.
        asked: whether a signal asks for an end.
    """

    progress: Progress = ignore_progress
    notice: Notice = ignore_notice
    on_event: OnEvent = ignore_event
    parallel: Processes = field(default_factory=Processes)
    asked: Asked = field(default_factory=Asked)
