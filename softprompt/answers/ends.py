"""Where a scored answer ends: no candidate may be the beginning of another one without its score knowing that it ends.

The losses of "1" and of "10" both raise P(1); only the second raises P(0 | 1), and it does so on every text, up to 1. Then
P(10) = P(1) whatever the text says. An end behind every candidate of such a row makes P(end | 1) and P(0 | 1) compete.

A masked-LM base is given the number of its masks, so answers of different lengths never compete at a mask. Once
learned, "bad" at one mask and "not bad" at two would both be certain. So all answers get as many masks as the longest,
and an end token fills those that are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..types import Ids


def ended(candidates: Sequence[Ids], end: Ids) -> tuple[Ids, ...]:
    """The candidates, each with `end` behind it where one of them begins another."""
    return tuple((*ids, *end) for ids in candidates) if some_begins_another(candidates) else tuple(candidates)


def filled(candidates: Sequence[Ids], end: Ids) -> tuple[Ids, ...]:
    """The candidates, all as long as the longest: the first token of `end` stands where others have ended."""
    longest = max(map(len, candidates), default=0)
    return tuple((*ids, *end[:1] * (longest - len(ids))) for ids in candidates)


def some_begins_another(candidates: Sequence[Ids]) -> bool:
    """Whether the ids of one candidate are the beginning of another's, and not all of them."""
    # in sorted order whatever begins with some ids follows them at once
    return any(len(a) < len(b) and b[: len(a)] == a for a, b in pairwise(sorted(set(candidates))))
