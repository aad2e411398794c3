"""How long a call takes: recorded seconds of each case, scaled by this machine's speed, then by what was measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from softprompt.benchmarks.speed.cases import ENCODING, Case
from softprompt.benchmarks.speed.sweep import SWEEP
from softprompt.benchmarks.speed.turns import Turns

# On SmolLM2-135M, two cores of an AMD EPYC with AVX-512, fp32: seconds of our step and of the peer's (benchmarks/LOG.md)
RECORDED = {
    "soft-p20": (1.86, 6.20),
    "soft-p100": (2.37, 12.93),
    "infix-short": (0.25, 11.32),
    "infix-long": (0.16, 15.33),
    "prefix": (1.57, 5.0),
    "prefix-upper": (0.54, 1.57),
    "p_tuning": (1.9, 6.3),
    "lora": (2.96, 7.35),
    "alora": (0.53, 8.0),
    "full": (4.30, 13.29),
    "soft-b32": (3.35, 11.2),
    "ia3": (3.6, 9.4),
    "hard": (1.5, 4.2),
    "probe": (1.5, 3.0),
}
WHOLE = {ENCODING: 25.0, SWEEP: 1500.0}  # seconds of what has no turns
MIXED_STEPS = (1.33, 1.30)
READY = 10.0  # seconds until both processes have loaded and the first step begins
ENCODE = 0.9e-3  # seconds to encode a token of a text
PEAK = 0.5  # seconds in each turn in which the machine's own rate is measured
RATE = 190e9  # FLOP/s of products of matrices there, one after the other
WEIGHTS = 538e6  # bytes of that base's weights
MEASURED_FOR = 1.0  # seconds


@dataclass(frozen=True)
class Span:
    """Seconds: where the fewest turns suffice, and where all are taken."""

    least: float
    most: float

    @property
    def middle(self) -> float:
        """What is expected: figures settle at any turn between the two."""
        return (self.least + self.most) / 2

    def __add__(self, other: Span) -> Span:
        return Span(self.least + other.least, self.most + other.most)

    def __mul__(self, factor: float) -> Span:
        return Span(self.least * factor, self.most * factor)


@dataclass(frozen=True)
class Speed:
    """This machine's, and the base's, against the recorded ones: how many times as long a step takes, and a start."""

    step: float
    start: float

    @staticmethod
    def measured(base: str) -> Speed:
        """By products of matrices for a second, with this process's threads.

        Args:
            base: a step takes longer in proportion to its weights; as recorded where they are not in a folder.
        """
        slower = RATE / _rate()
        files = list(Path(base).glob("*.safetensors")) if Path(base).is_dir() else []
        weights = sum(file.stat().st_size for file in files) / WEIGHTS if files else 1.0
        return Speed(slower * weights, max(1.0, slower))


def of_case(case: Case, turns: Turns, speed: Speed, like: Case | None = None) -> Span:
    """Of a case whose steps, or those of one `like` it, are recorded; seconds go with tokens."""
    like = like or case
    ours, theirs = (seconds * case.size / like.size for seconds in RECORDED[like.name])
    encoded = case.batch * case.tokens * (turns.least + 1) * (ENCODE if case.encodes else 0.0)
    turn = (case.turn * ours + theirs) * speed.step + PEAK
    ready = READY * speed.start + encoded * speed.step
    return Span(ready + (turns.least + 1) * turn, ready + (turns.most + 1) * turn)


def of_mixed(turns: Turns, speed: Speed) -> Span:
    """Of the mixed batch."""
    turn, ready = sum(MIXED_STEPS) * speed.step, READY * speed.start
    return Span(ready + (turns.least + 1) * turn, ready + (turns.most + 1) * turn)


def of_whole(name: str, speed: Speed) -> Span:
    """Of what is recorded as a whole."""
    seconds = READY * speed.start + WHOLE[name] * speed.step
    return Span(seconds, seconds)


class Schedule:
    """What is left to do and how long it takes; every case that was measured corrects it.

    Args:
        spans: of the cases that were asked for, in order.
    """

    def __init__(self, spans: dict[str, Span], clock: Callable[[], float] = time.monotonic) -> None:
        self._left, self._clock = dict(spans), clock
        self._foretold = self._taken = 0.0
        self._current, self._began = "", 0.0

    @property
    def names(self) -> list[str]:
        """Of the cases that are left."""
        return list(self._left)

    def begin(self, name: str) -> None:
        """A case begins now."""
        self._current, self._began = name, self._clock()

    def done(self, name: str, seconds: float) -> None:
        """A case took so long."""
        self._foretold += self._left.pop(name).middle
        self._taken += seconds
        self._current = ""

    def drop(self, name: str) -> None:
        """A case is left out."""
        self._left.pop(name, None)

    def left(self) -> Span:
        """Seconds that are left, of the current case what is left of it."""
        factor, running = self._taken / self._foretold if self._foretold else 1.0, 0.0
        current = Span(0.0, 0.0)
        if self._current:
            running, current = self._clock() - self._began, self._left[self._current]
            factor = max(factor, (self._taken + running) / (self._foretold + current.middle))
        others = [span for name, span in self._left.items() if name != self._current]
        rest, current = sum(others, Span(0.0, 0.0)) * factor, current * factor
        return rest + Span(max(0.0, current.least - running), max(0.0, current.most - running))


def in_words(seconds: float) -> str:
    """`40 s`, `9 min`, `1 h 20 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _rate() -> float:
    """FLOPs per second of products of matrices, pauses that others cause included."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size, done = 1024, 0
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    torch.mm(a, b).sum().item()  # what is set up at the first use is not counted
    began = time.perf_counter()
    while (taken := time.perf_counter() - began) < MEASURED_FOR:
        for _ in range(4):
            c = torch.mm(a, b)
        c[0, 0].item()  # a GPU has done them then
        done += 4
    return 2.0 * size**3 * done / taken
