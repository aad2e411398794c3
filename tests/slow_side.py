"""A side of the speed benchmark that says that it has begun (a file) and then takes long: `python -m slow_side`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from softprompt.benchmarks.speed.worker import Work, serve


def set_up(request: dict[str, Any]) -> Work:
    """A step that takes ten minutes, and a set-up that takes as long if the request asks for it; each writes a file first."""

    def step() -> float:
        Path("stepping").write_text("")
        time.sleep(600)
        return 0.0

    if request.get("sets_up_slowly"):
        Path("setting-up").write_text("")
        time.sleep(600)
    return Work(step, {"device": "cpu"}, lambda: (1.0, 1.0))


if __name__ == "__main__":
    serve(set_up)
