"""What a launcher (`torchrun`, `accelerate launch`, `mpirun`) says in the environment of the processes that it starts."""

from __future__ import annotations

import os

_NAMES = {  # as torchrun and accelerate, Intel's MPI and Open MPI set them
    "world": ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"),
    "rank": ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK"),
    "local": ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK"),
}


def launched(what: str) -> int:
    """Of this process: `world` (how many run together), `rank` (which it is), `local` (which of those on this machine)."""
    found = (os.environ.get(name, "") for name in _NAMES[what])
    return next((int(text) for text in found if text.isdigit()), 1 if what == "world" else 0)
