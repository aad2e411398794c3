"""Random numbers of our own: what the process draws elsewhere goes on as if we had drawn nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Inside, torch's random numbers begin at `seed`, on the CPU and on this device; behind it they are as they were."""
    kind = "cpu" if device is None else device.type
    with torch.random.fork_rng([device] if kind == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if kind == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif kind != "cpu":
            torch.get_device_module(kind).manual_seed(seed)
        yield
