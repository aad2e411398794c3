"""A side of the benchmark in a process of its own: `step`, `step`, … on request, so that two sides can alternate.

Reads one JSON object per line on the standard input, answers with one per line. The first line says what to set up.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TextIO

import torch
from torch import Tensor

from softprompt.base.memory import peak_memory
from softprompt.benchmarks.compare.parent import end_with
from softprompt.errors import SoftpromptError

Step = Callable[[], float]


class Work(NamedTuple):
    """What a side does.

    Attributes:
        step: runs one step, gives its loss.
        facts: what the other process should know of it.
        peak: FLOPs per second of the fastest matrix product, measured now: by the clock, and by the processor time that a
            thread was given; None where nobody asks.
    """

    step: Step
    facts: dict[str, Any]
    peak: Callable[[], tuple[float, float]] | None = None


def digest(states: Tensor) -> float:
    """One number of states [B, H], by which both sides can be compared: mean over rows of |Σ state · cos(place)| / H."""
    places = torch.arange(states.shape[1], device=states.device, dtype=states.dtype)
    return (states @ torch.cos(places)).abs().mean().item() / states.shape[1]


def serve(set_up: Callable[[dict[str, Any]], Work]) -> None:
    """Answer requests until the input ends, or until one is refused in words: these are the answer then.

    The process ends soon after the one whose number is its first argument, also in the middle of a step.

    Args:
        set_up: takes the first line.
    """
    end_with(int(sys.argv[1]))
    answers = sys.stdout
    sys.stdout = sys.stderr  # nothing that a library prints may get between the answers
    try:
        _serve(set_up, answers)
    except SoftpromptError as error:
        _answer(answers, {"error": str(error)})


def _serve(set_up: Callable[[dict[str, Any]], Work], answers: TextIO) -> None:
    requests = _requests()
    work = set_up(next(requests))
    _answer(answers, {"ready": True, **work.facts, "loaded": peak_memory()})
    for request in requests:
        if request.get("do") == "step":
            began, cpu = time.perf_counter(), time.process_time()
            loss = work.step()
            taken = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
            _answer(answers, {**taken, "loss": loss})
        elif request.get("do") == "sgemm" and work.peak is not None:
            _answer(answers, {"rates": work.peak()})
        else:
            _answer(answers, peak_memory())


def _requests() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def _answer(answers: TextIO, value: dict[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()
