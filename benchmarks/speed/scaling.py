"""How cost grows: exponents by log–log least squares."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

ASKED = {"T": "tokens", "P": "prompt_length", "B": "batch"}  # the sizes of a row of the grid, as they were asked for

UNITS = ("seconds", "cpu_seconds")


@dataclass(frozen=True)
class Slope:
    """seconds ∝ size^exponent, of the clock or (`unit`) of processor time, which others that use the machine hardly change.

    Attributes:
        over: T (text tokens), P (prompt length), B (rows of a batch) or rows (that are encoded).
        interval: 95 %, by t; None where no degree of freedom is left.
        points: measured; `groups`: sets of them in which only that size differs.
    """

    name: str
    side: str
    over: str
    exponent: float
    interval: tuple[float, float] | None
    points: int
    groups: int
    unit: str = "seconds"

    def as_dict(self) -> dict[str, Any]:
        """For the JSON."""
        return asdict(self)


def slope(
    name: str, side: str, over: str, measured: Sequence[tuple[float, float, Hashable]], level: float = 0.95
) -> Slope | None:
    """Least squares of log seconds on log size, every group with a constant of its own (`scipy.stats.linregress`).

    Subtracting each group's means on both sides gives that slope (Frisch & Waugh 1933; Lovell 1963). Its standard error
    is then corrected for the constants: one degree of freedom less for each group.

    Args:
        measured: (size, seconds, group); all other sizes are equal within a group.

    Returns:
        None where the size does not differ within any group.
    """
    groups: dict[Hashable, list[tuple[float, float]]] = defaultdict(list)
    for size, seconds, group in measured:
        groups[group].append((math.log(size), math.log(seconds)))
    useful = [np.array(points) for points in groups.values() if len({size for size, _ in points}) > 1]
    if not useful:
        return None
    centred = np.concatenate([points - points.mean(0) for points in useful])
    fit = stats.linregress(centred[:, 0], centred[:, 1])
    count, free = len(centred), len(centred) - len(useful) - 1
    interval = None
    if free > 0:
        error = float(fit.stderr) * math.sqrt((count - 2) / free)
        reach = float(stats.t.ppf((1 + level) / 2, free)) * error
        interval = (float(fit.slope) - reach, float(fit.slope) + reach)
    return Slope(name, side, over, float(fit.slope), interval, count, len(useful))


def slopes(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the grid's rows, per method, side and size."""
    found = []
    for method in dict.fromkeys(row["grid"] for row in rows if "grid" in row):
        mine = [row for row in rows if row.get("grid") == method]
        for side in ("our", "peer"):
            for unit, (over, key) in itertools.product(UNITS, ASKED.items()):
                told = [row for row in mine if row[f"{side}_{unit}"]]
                fixed = [other for other in ASKED.values() if other != key]
                axis = "text_tokens" if over == "T" else key  # tokens as they were, not about how many were asked for
                points = [
                    (row[axis], row[f"{side}_{unit}"], tuple(row[other] for other in fixed))
                    for row in told
                    if row[axis]
                ]
                if one := slope(method, "ours" if side == "our" else "peer", over, points):
                    found.append({**one.as_dict(), "unit": unit})
    return found


def encoding_slopes(measured: Sequence[tuple[int, float, int, float]]) -> list[dict[str, Any]]:
    """Of (about how many tokens, tokens, rows, seconds) of encoded rows, over rows and over tokens."""
    rows = [(count, seconds, about) for about, _, count, seconds in measured]
    tokens = [(size, seconds, count) for _, size, count, seconds in measured]
    every = [slope("encoding", "ours", "rows", rows), slope("encoding", "ours", "T", tokens)]
    return [one.as_dict() for one in every if one is not None]
