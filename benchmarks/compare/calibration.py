"""How often the comparison is wrong, and what it finds, by simulation: the figures of docs/statistics.md.

python -m softprompt.benchmarks.compare.calibration [--simulations 4000] [--json FILE] [--plot FILE.png]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from softprompt.benchmarks.compare.statistics import mcnemar, mean_over
from softprompt.errors import MissingExtraError
from softprompt.metrics.variance import ALPHA, variance_of_difference

MARGIN = 0.02
SIZES = ((300, 3), (300, 5), (1000, 3), (1000, 5))  # rows, seeds
_BATCH = 250  # comparisons at once: 10 MB for each array of 5 seeds and 1,000 rows
_NODES, _WEIGHTS = special.roots_hermitenorm(201)


@dataclass(frozen=True)
class World:
    """Where answers come from: P(right) = logistic(method + row + method × row + seed), each but the first normal.

    With the defaults two methods of an accuracy of .88 answer differently on 10 % of the rows, two seeds of one method
    on 6 %. The accuracy of seeds has a standard deviation of 1 point.

    Attributes:
        accuracy: over the population of rows and seeds.
        rows, interaction, seeds: standard deviations on the logit scale, of rows, method × row and (each method's) seeds.
    """

    accuracy: float = 0.88
    rows: float = 6.07489
    interaction: float = 2.41261
    seeds: float = 0.339733

    def level(self, accuracy: float) -> float:
        """The logit of a method with that accuracy over rows and seeds (integrated out by Gauss-Hermite quadrature)."""
        deviation = np.sqrt(self.rows**2 + self.interaction**2 + self.seeds**2)

        def over(level: float) -> float:
            return float(_WEIGHTS @ special.expit(level + deviation * _NODES) / _WEIGHTS.sum() - accuracy)

        return float(optimize.brentq(over, -40, 40))

    def draw(
        self, rng: np.random.Generator, shape: tuple[int, int, int], accuracies: Sequence[float], same: bool = False
    ) -> list[np.ndarray]:
        """Answers, 0 or 1, of one method for each accuracy: float32 [simulations, seeds, rows] as `shape` says.

        Args:
            same: the methods are one: they have the same method × row effects, and differ in seeds alone.
        """
        count, seeds, rows = shape
        row = rng.normal(0, self.rows, (count, 1, rows))
        with_row = [rng.normal(0, self.interaction, (count, 1, rows)) for _ in accuracies[: 1 if same else None]]
        found = []
        for place, accuracy in enumerate(accuracies):
            own = row + with_row[0 if same else place] + rng.normal(0, self.seeds, (count, seeds, 1))
            right = rng.random(shape) < special.expit(self.level(accuracy) + own)
            found.append(right.astype(np.float32))
        return found


def facts(world: World, rng: np.random.Generator) -> dict[str, float]:
    """What a world is like, in percent and points: measured on drawn answers."""
    [runs] = world.draw(rng, (20, 100, 5000), [world.accuracy])
    one, other = world.draw(rng, (200, 2, 5000), [world.accuracy] * 2)
    noise = runs.var(axis=1, ddof=1).mean(axis=-1) / runs.shape[-1]  # of seeds' means, from their rows being finite
    return {
        "accuracy": 100 * float(np.mean([runs.mean(), one.mean(), other.mean()])),
        "seeds' deviation": 100 * float(np.sqrt((runs.mean(axis=-1).var(axis=-1, ddof=1) - noise).mean())),
        "two seeds disagree": 100 * float((one[:, 0] != one[:, 1]).mean()),
        "two methods disagree": 100 * float((one[:, 0] != other[:, 0]).mean()),
    }


def rates(
    world: World, rows: int, seeds: int, simulations: int, gap: float = 0.0, same: bool = False, seed: int = 0
) -> dict[str, float]:
    """Shares of comparisons, in percent, of a method `gap` below another.

    Returns:
        By name, the share of comparisons that are significant at 5 %, or another figure:

        - "ours": by the comparison's own test;
        - "satterthwaite": by that test with Satterthwaite's degrees of freedom (see `satterthwaite`);
        - "rows only": by a t test over rows' mean differences;
        - "mcnemar": by McNemar's test of the first seeds;
        - "no worse": share whose interval's lower bound is above −2 points;
        - "smallest": median of the smallest difference that would be found, in points.
    """
    counts = dict.fromkeys(("ours", "satterthwaite", "rows only", "mcnemar", "no worse"), 0.0)
    smallest = []
    for a, b in _draws(world, (simulations, seeds, rows), [world.accuracy - gap, world.accuracy], same, seed):
        difference, variance = (a - b).mean(axis=(-2, -1)), variance_of_difference(a, b)
        half = variance.quantile(1 - ALPHA / 2)
        by_row = (a - b).mean(axis=-2)
        counts["ours"] += np.sum(np.abs(difference) > half)
        counts["satterthwaite"] += np.sum(satterthwaite(a - b) < ALPHA)
        counts["rows only"] += np.sum(stats.ttest_1samp(by_row, 0, axis=-1).pvalue < ALPHA)
        counts["mcnemar"] += sum(mcnemar(x, y) < ALPHA for x, y in zip(a[:, 0], b[:, 0], strict=True))
        counts["no worse"] += np.sum(difference - half > -MARGIN)
        smallest.append(variance.detectable())
    found = {name: 100 * float(count) / simulations for name, count in counts.items()}
    return {**found, "smallest": 100 * float(np.median(np.concatenate(smallest)))}


def satterthwaite(scores: np.ndarray) -> np.ndarray:
    """p of the mean of scores [..., k, n] by the textbook, to compare with: it is too liberal with few seeds.

    Variance (MS_seeds + MS_rows − MS_rest) / kn, at least what either gives alone; Satterthwaite's (1946) degrees of freedom.
    """
    seeds, rows = scores.shape[-2:]
    mean = scores.mean(axis=(-2, -1))
    by_row, by_seed = scores.mean(axis=-2), scores.mean(axis=-1)
    of_rows, of_seeds = by_row.var(axis=-1, ddof=1) / rows, by_seed.var(axis=-1, ddof=1) / seeds
    rest = scores - by_row[..., None, :] - by_seed[..., None] + mean[..., None, None]
    free = (seeds - 1) * (rows - 1)
    of_rest = (rest**2).sum(axis=(-2, -1)) / free / (seeds * rows)
    variance = np.maximum(of_seeds + of_rows - of_rest, np.maximum(of_seeds, of_rows))
    df = variance**2 / (of_seeds**2 / (seeds - 1) + of_rows**2 / (rows - 1) + of_rest**2 / free)
    return 2 * stats.t.sf(np.abs(mean) / np.sqrt(variance), df)


def coverage(world: World, rows: int, seeds: int, simulations: int, seed: int = 0) -> dict[str, float]:
    """How often `mean_over`'s interval holds the accuracy over all rows and seeds, percent; its mean half-width, points."""
    found = [
        mean_over(scores).interval
        for [runs] in _draws(world, (simulations, seeds, rows), [world.accuracy], False, seed)
        for scores in runs
    ]
    low, high = np.array(found).T
    held = (low <= world.accuracy) & (world.accuracy <= high)
    return {"held": 100 * float(held.mean()), "half-width": 50 * float((high - low).mean())}


def _draws(
    world: World, shape: tuple[int, int, int], accuracies: Sequence[float], same: bool, seed: int
) -> Iterator[list[np.ndarray]]:
    rng, left = np.random.default_rng(seed), shape[0]
    while left:
        count = min(left, _BATCH)
        yield world.draw(rng, (count, *shape[1:]), accuracies, same)
        left -= count


def run(simulations: int) -> dict[str, Any]:
    """All figures, by table: {"facts": {...}, "tables": {title: [row, ...]}}; a row is {column: value}."""
    world = World()
    deviations = {f"{factor:g}": replace(world, seeds=world.seeds * factor) for factor in (0.0, 0.5, 1.0, 2.0)}

    def places(sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[dict[str, Any], tuple[int, int]]]:
        yield from (({"rows": rows, "seeds": seeds}, (rows, seeds)) for rows, seeds in sizes)

    def nulls(same: bool) -> list[dict[str, Any]]:
        kept = ("ours", "satterthwaite", "rows only", "mcnemar")
        return [
            {"seeds' deviation": name, **at, **{key: found[key] for key in kept}}
            for name, one in deviations.items()
            for at, size in places(SIZES)
            for found in [rates(one, *size, simulations, same=same)]
        ]

    def power() -> Iterator[dict[str, Any]]:
        for at, size in places(SIZES):
            found = {points: rates(world, *size, simulations, points / 100) for points in range(1, 7)}
            smallest = found[4]["smallest"]
            there = rates(world, *size, simulations, smallest / 100)["ours"]
            shares = {f"{points}": one["ours"] for points, one in found.items()}
            yield {**at, **shares, "smallest (points)": smallest, "found there": there}

    def claims() -> Iterator[dict[str, Any]]:
        for at, size in places(SIZES):
            false, true = (rates(world, *size, simulations, gap)["no worse"] for gap in (MARGIN, 0.0))
            yield {**at, "really 2 points worse": false, "really equal": true}

    sizes = [(rows, seeds) for rows in (300, 1000) for seeds in (1, 2, 3, 5)]
    return {
        "simulations": simulations,
        "facts": facts(world, np.random.default_rng(0)),
        "tables": {
            "The same method twice, declared different (%)": nulls(same=True),
            "Two methods of equal accuracy, declared different (%)": nulls(same=False),
            "A planted difference of so many points, found (%)": list(power()),
            "Declared no worse by more than 2 points (%)": list(claims()),
            "Mean over seeds: the interval holds the truth (%)": [
                {**at, **coverage(world, *size, simulations)} for at, size in places(sizes)
            ],
        },
    }


def as_text(found: dict[str, Any]) -> str:
    """Figures as Markdown tables."""
    known = ", ".join(f"{name} {value:.2f}" for name, value in found["facts"].items())
    lines = [f"{found['simulations']} simulations of each cell; {known}"]
    for title, rows in found["tables"].items():
        lines += ["", title, "", f"| {' | '.join(rows[0])} |", f"|{' --- |' * len(rows[0])}"]
        lines += [f"| {' | '.join(_cell(value) for value in row.values())} |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def plot(found: dict[str, Any], path: Path) -> None:
    """Power curves.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("a plot needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for row in found["tables"]["A planted difference of so many points, found (%)"]:
        points = [key for key in row if key.isdigit()]
        axes.plot(
            [int(key) for key in points],
            [row[key] for key in points],
            "o-",
            label=f"{row['rows']} rows, {row['seeds']} seeds",
        )
    axes.axhline(80, color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="true difference (points)", ylabel="found (%)", ylim=(0, 102))
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m softprompt.benchmarks.compare.calibration", description=__doc__)
    parser.add_argument("--simulations", type=int, default=4000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args(arguments)
    found = run(given.simulations)
    print(as_text(found))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if given.plot:
        plot(found, given.plot)


if __name__ == "__main__":
    main()
