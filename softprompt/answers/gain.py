"""What answering together gains over the best of those that answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..metrics import Difference, difference, metric_of
from .outcome import Evaluation


@dataclass(frozen=True)
class Gain:
    """How much better members are together than the best of them alone.

    The best is the best on the same rows, and of equal ones that with the lower log loss. Looking for it on these rows
    flatters it, so the gain is rather too small than too large.

    Attributes:
        best: its place among the members.
        difference: together minus alone.
    """

    best: int
    difference: Difference


def gain_over_best(together: Evaluation, members: Sequence[Evaluation]) -> Gain | None:
    """The gain over the best member, all measured on the same rows.

    Returns:
        None where the metric does not say what a row adds to it.

    Example:
        >>> from softprompt.answers import Outcome, summarize
        >>> gold = "aabb"
        >>> one, other, both = (
        ...     summarize("accuracy", [Outcome(f"row {at}", *pair) for at, pair in enumerate(zip(gold, said))])
        ...     for said in ("abbb", "aaab", "aabb")
        ... )
        >>> gain = gain_over_best(both, [one, other])
        >>> gain.best, gain.difference.value
        (0, 0.25)
    """
    name = together.estimate.metric
    if metric_of(name).rows is None:
        return None
    best = max(range(len(members)), key=lambda place: (members[place].estimate.value, -members[place].nll))
    gold, theirs = [one.gold for one in together.outcomes], members[best].outcomes
    found = difference(name, gold, [one.predicted for one in together.outcomes], [one.predicted for one in theirs])
    return Gain(best, found)
