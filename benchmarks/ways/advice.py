"""What to take, in words, and whether more labels would pay."""

from __future__ import annotations

from collections.abc import Sequence

from softprompt.benchmarks.compare.report.numbers import plain, seconds
from softprompt.benchmarks.ways.suite import Way
from softprompt.benchmarks.ways.table import Curve, Difference, Line

NEAR = 0.01  # below the best mean: one point
LITTLE = 0.02  # what the last doubling of the labels gave, at most, where more are hardly worth it

RULE = (
    "The rule: the simplest way that is not significantly worse than the best (paired 95 % interval over rows) and within "
    "1 point of it."
)


def recommended(lines: Sequence[Line], ways: Sequence[Way], folds: int) -> Line:
    """The simplest way that is as good as the best, as far as these rows can tell.

    Args:
        lines: best first, at least one.
        ways: the simplest first.
    """
    whole = [line for line in lines if line.folds == folds] or lines[:1]
    whole = sorted(whole, key=lambda line: ways.index(line.way))
    return next(line for line in whole if line.to_best is None or _as_good(line.to_best))


def _as_good(found: Difference) -> bool:
    return found.value >= -NEAR and found.interval[1] >= 0


def advice(lines: Sequence[Line], chosen: Line, folds: int) -> list[str]:
    """Why this one, a sentence each."""
    best = lines[0]
    if chosen is best:
        told = [f"Take {chosen.title}: {_share(chosen.value)} is the best, and nothing simpler is as good."]
        others = [line for line in lines[1:] if line.folds == folds]
        if others:
            told.append(f"Next is {others[0].title} with {_share(others[0].value)} ({points(others[0].to_best)}).")
    else:
        assert chosen.to_best is not None
        told = [
            f"Take {chosen.title}: {_share(chosen.value)}, and {best.title} as the best has {_share(best.value)} "
            f"({points(chosen.to_best)}). {_cheaper(chosen, best)}"
        ]
    ahead = [line for line in lines if line.folds < folds and line.to_best and line.to_best.value > 0]
    told += [
        f"{line.title[0].upper()}{line.title[1:]} is ahead by {points(line.to_best)} on the {line.folds} of {folds} folds "
        "that it has run; the same command goes on with the others."
        for line in ahead
        if line.to_best is not None
    ]
    least = next((line for line in lines if line.way.contender == "majority"), None)
    if least is not None and (least.to_best is None or least.to_best.interval[1] >= 0):
        away = f" ({points(least.to_best)} to the best)" if least.to_best else ""
        told.append(
            f"Nothing is certainly better than always giving the commonest label{away}: look at the labels, or add rows."
        )
    return told


def _cheaper(chosen: Line, best: Line) -> str:
    """What is saved by the simpler way."""
    if chosen.train_seconds < best.train_seconds / 2:
        return f"It learns in {seconds(chosen.train_seconds)} instead of {seconds(best.train_seconds)}."
    return "It is the simpler one."


def about_labels(curves: Sequence[Curve], chosen: Line) -> str | None:
    """Whether more labels would pay, by the last doubling of them; of the chosen way if it has a curve, else of the best."""
    if not curves:
        return None
    own = [curve for curve in curves if curve.points[0].way == chosen.way]
    curve = (own or sorted(curves, key=lambda one: -one.points[-1].value))[0]
    fewer, more = curve.points[-2].labels, curve.points[-1].labels
    low, high = curve.gain.interval
    does = "gained" if curve.gain.value >= 0 else "changed by"
    said = f"from {fewer} to {more} labels {curve.title} {does} {points(curve.gain)}: "
    if low > 0:
        said += "more labels would pay"
    elif high < LITTLE:
        said += "more labels hardly pay any more"
    else:
        said += "whether more labels would pay, these rows cannot tell"
    return said[0].upper() + said[1:] + "."


def points(found: Difference | None) -> str:
    """A difference in points with its interval."""
    if found is None:
        return "–"
    low, high = (plain(100 * bound, 1, True) for bound in found.interval)
    return f"{plain(100 * found.value, 1, True)} points [{low}, {high}]"


def _share(value: float) -> str:
    return f"{value:.3f}"
