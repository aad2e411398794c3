"""A side of the benchmark in a process of its own: `step`, `step`, … on request, so that two sides can alternate.

Reads one JSON object per line on the standard input, answers with one per line. The first line says what to set up.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from softprompt.base.memory import peak_memory

Step = Callable[[], float]


def serve(set_up: Callable[[dict[str, Any]], tuple[Step, dict[str, Any]]]) -> None:
    """Answer requests until the input ends.

    Args:
        set_up: takes the first line; gives a function that runs one step and returns its loss, and facts to report.
    """
    answers = sys.stdout
    sys.stdout = sys.stderr  # nothing that a library prints may get between the answers
    requests = _requests()
    step, facts = set_up(next(requests))
    _answer(answers, {"ready": True, **facts})
    for request in requests:
        if request.get("do") == "step":
            began = time.perf_counter()
            loss = step()
            _answer(answers, {"seconds": time.perf_counter() - began, "loss": loss})
        else:
            _answer(answers, peak_memory())


def _requests() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def _answer(answers: Any, value: dict[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()
