"""The same methods at several sizes: prompt length P, rows B, text tokens T; what does not fit is left out and said."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from softprompt.benchmarks.speed.cases import CASES, EXTRA, Case
from softprompt.benchmarks.speed.session import Session
from softprompt.benchmarks.speed.sides import compare
from softprompt.benchmarks.speed.turns import Turns
from softprompt.config import suggest
from softprompt.errors import ConfigError
from softprompt.types import Progress

_OF = {case.name: case for case in (*CASES, *EXTRA)}
METHODS = {
    "soft": _OF["soft-p20"],
    "infix": _OF["infix-short"],
    "prefix": _OF["prefix"],
    "p_tuning": _OF["p_tuning"],
    "lora": _OF["lora"],
    "alora": _OF["alora"],
    "ia3": _OF["ia3"],
    "full": _OF["full"],
    "hard": _OF["hard"],
    "probe": _OF["probe"],
}
ALL = "all"
SIZES = {"P": (5, 20, 100), "B": (8, 32), "T": (30, 120, 300)}
LONGEST_STEP = 120.0  # seconds; what would take longer is left out
SHARE = 0.85  # of the free memory that both sides together may take


def sizes(text: str) -> dict[str, tuple[int, ...]]:
    """`P=5,20 T=30` → the sizes that are measured; what is not named keeps all of `SIZES`, as all do with `all`.

    Raises:
        ConfigError: it cannot be read.
    """
    found = dict(SIZES)
    for item in [] if text == ALL else text.split():
        name, _, values = item.partition("=")
        if name not in SIZES or not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", values):
            raise ConfigError(f"--grid {item!r}: expected {ALL}, or sizes such as 'P=5,20 B=8 T=30,120'")
        found[name] = tuple(sorted({int(value) for value in values.split(",")}))
    return found


def points(method: str, of: dict[str, tuple[int, ...]]) -> Iterator[Case]:
    """The cases of one method, the smallest first; a method without a prompt has no P.

    Raises:
        ConfigError: no such method here.
    """
    if method not in METHODS:
        raise ConfigError(f"--grid has no method {method!r}{suggest(method, list(METHODS))}")
    like = METHODS[method]
    prompted = "length" in like.method
    every = itertools.product(of["P"] if prompted else (0,), of["B"], of["T"])
    for length, batch, tokens in sorted(every, key=lambda one: one[1] * (one[0] + one[2])):
        own = {**like.method, "length": length} if prompted else like.method
        name = f"{method} P={length} B={batch} T={tokens}" if prompted else f"{method} B={batch} T={tokens}"
        yield replace(
            like,
            name=name,
            method=own,
            batch=batch,
            tokens=tokens,
            peer_length=length if like.peer_length is not None else None,
        )


@dataclass
class Forecast:
    """What a point would take, from the largest that was measured: seconds and memory beyond the model go with tokens.

    Args:
        free: GB of memory that there are; None where the system does not say.
    """

    free: float | None
    # side → (tokens, seconds of a step)
    seconds: dict[str, tuple[float, float]] = field(default_factory=dict)
    # side → (tokens, GB loaded, GB at most)
    memory: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    def learn(self, tokens: float, row: dict[str, Any]) -> None:
        """Take a measured row in."""
        for side in ("our", "peer"):
            if row[f"{side}_seconds"] is not None:
                self.seconds[side] = (tokens, row[f"{side}_seconds"])
            if row[f"{side}_peak_gb"] is not None:
                self.memory[side] = (tokens, row[f"{side}_loaded_gb"], row[f"{side}_peak_gb"])

    def gigabytes(self, side: str, tokens: float) -> float:
        """At most, of a process; 0 before anything was measured."""
        if side not in self.memory:
            return 0.0
        of, loaded, most = self.memory[side]
        return loaded + (most - loaded) * tokens / of

    def excuse(self, side: str, tokens: float, beside: float = 0.0) -> str:
        """Why this side is left out; empty where it is not.

        Args:
            beside: GB that the other side takes meanwhile.
        """
        of, seconds = self.seconds.get(side, (tokens, 0.0))
        if (seconds := seconds * tokens / of) > LONGEST_STEP:
            return f"a step would take about {seconds:.0f} s"
        needs = self.gigabytes(side, tokens)
        if needs and self.free is not None and needs + beside > SHARE * self.free:
            return f"it would take about {needs:.0f} GB of {self.free:.0f}"
        return ""


def points_of(methods: list[str], text: str) -> dict[str, list[Case]]:
    """Every point of every method, by method.

    Raises:
        ConfigError: no such method here; the sizes cannot be read.
    """
    of = sizes(text)
    return {method: list(points(method, of)) for method in methods}


def run_grid(
    session: Session, base: str, every: dict[str, list[Case]], turns: Turns
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure every point of every method that is not kept.

    Returns:
        (rows as `compare` gives them, what was left out, one line each).
    """
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for method, cases in every.items():
        forecast = Forecast(free_gigabytes())
        for case in cases:
            row = session.kept(case.name)
            if row is None:
                if why := forecast.excuse("our", case.size):
                    left_out.append(f"{case.name}: {why}")
                    session.drop(case.name)
                    continue
                why = forecast.excuse("peer", case.size, forecast.gigabytes("our", case.size))
                row = session.row(case.name, partial(_point, base, case, turns, method, why))
            if row["peer_left_out"]:
                left_out.append(f"{case.name}, {case.peer}: {row['peer_left_out']}")
            forecast.learn(case.size, row)
            rows.append(row)
    return rows, left_out


def _point(base: str, case: Case, turns: Turns, method: str, why: str, progress: Progress) -> dict[str, Any]:
    """A row; `why`: the peer is left out of it."""
    return {**compare(base, case, turns, progress, peer=not why), "grid": method, "peer_left_out": why}


def free_gigabytes() -> float | None:
    """Memory that can be had: of the GPU where there is one, else of the machine; None where the system does not say."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] / 1e9
    told = Path("/proc/meminfo")
    if told.exists() and (found := re.search(r"MemAvailable:\s+(\d+) kB", told.read_text())):
        return int(found[1]) * 1024 / 1e9
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (AttributeError, ValueError, OSError):
        return None
