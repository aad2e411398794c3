"""What a launcher (`torchrun`, `accelerate launch`) says in the environment of the processes that it starts."""

from __future__ import annotations

import os

_NAMES = {"world": "WORLD_SIZE", "rank": "RANK", "local": "LOCAL_RANK"}


def launched(what: str) -> int:
    """Of this process: `world` (how many run together), `rank` (which it is), `local` (which of those on this machine)."""
    text = os.environ.get(_NAMES[what], "")
    return int(text) if text.isdigit() else int(what == "world")
