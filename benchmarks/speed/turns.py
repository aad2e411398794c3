"""The steps that two sides take in turns, and when they are enough."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scipy import stats

LEAST, MOST = 3, 7  # measured turns, where the command does not say how many
REACH = 0.1  # of an interval to both sides, relative, that is narrow enough


class Taken(NamedTuple):
    """What one step took: seconds on the clock, its loss, seconds of processor time (of all threads together)."""

    seconds: float
    loss: float
    cpu_seconds: float


@dataclass(frozen=True)
class Turns:
    """How many turns are measured: `least`, then on to `most` until the 95 % interval reaches at most ±`reach` (relative).

    An interval that decides when to stop covers somewhat less often than 95 %; `least` equal to `most` has none of that.
    """

    least: int = LEAST
    most: int = MOST
    reach: float = REACH

    @staticmethod
    def of(steps: int | None, times: int = 1, reach: float = REACH) -> Turns:
        """Exactly so many; None: as many as are needed.

        Args:
            times: turns for each step asked for, where a turn is short.
        """
        return Turns(times * (steps or LEAST), times * (steps or MOST), reach)

    def enough(self, values: Sequence[float]) -> bool:
        """Whether these measured values (one a turn, positive) suffice."""
        if not self.least <= len(values) < self.most:
            return len(values) >= self.most
        between = interval(values)
        return between is not None and between[1] <= between[0] * (1 + self.reach) ** 2

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Of the geometric mean of positive values, by t on their logarithms; None of less than two."""
    if len(values) < 2:
        return None
    logs = [math.log(value) for value in values]
    reach = float(stats.t.ppf((1 + level) / 2, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(statistics.mean(logs) - reach), math.exp(statistics.mean(logs) + reach)


@dataclass
class Steps:
    """What was measured in turns: per turn the rates of sgemm, our steps, the peer's step; the first turn only warms up."""

    rates: list[tuple[float, float]] = field(default_factory=list)
    ours: list[list[Taken]] = field(default_factory=list)
    peer: list[Taken] = field(default_factory=list)

    @property
    def off(self) -> float:
        """Largest difference of the two sides' losses, step by step."""
        ours = [step for turn in self.ours for step in turn]  # both sides' n-th step is on the same rows
        return max((abs(mine.loss - theirs.loss) for mine, theirs in zip(ours, self.peer, strict=False)), default=0)

    @property
    def our_seconds(self) -> float:
        """Median of our steps."""
        return statistics.median(step.seconds for turn in self.ours[1:] for step in turn)

    @property
    def peer_seconds(self) -> float | None:
        """Median of the peer's steps."""
        return statistics.median(step.seconds for step in self.peer[1:]) if self.peer else None

    @property
    def speedups(self) -> list[float]:
        """Of each measured turn: the peer's seconds over the median of ours. Empty without a peer."""
        return [theirs.seconds / mine for theirs, mine in zip(self.peer[1:], self._medians, strict=False)]

    def enough(self, turns: Turns) -> bool:
        """Whether the turns' ratios, or without a peer our seconds, are."""
        return turns.enough(self.speedups if self.peer else self._medians)

    @property
    def _medians(self) -> list[float]:
        return [statistics.median(step.seconds for step in turn) for turn in self.ours[1:]]

    def utilisation(self, flops: list[dict[str, Any]], threads: int = 0) -> float:
        """Median over turns of model FLOPs / (seconds · peak), the peak measured right before the turn's steps.

        Args:
            flops: of our steps, in order, from the first on again at the end.
            threads: use the processor time of each of so many threads instead of the clock's, for step and peak. On a
                shared machine a step of seconds loses time to others; the best of many short products does not. Waiting
                of threads for each other is not in it.
        """
        shares, done = [], 0
        for index, turn in enumerate(self.ours):
            needed = sum(flops[(done + step) % len(flops)]["total"] for step in range(len(turn)))
            done += len(turn)
            if index:
                taken = sum(step.cpu_seconds / threads if threads else step.seconds for step in turn)
                shares.append(needed / (taken * self.rates[index][1 if threads else 0]))
        return statistics.median(shares)
