"""Which of the rows that an estimator learns from are held back to choose the best step."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from ..data import Row, split
from ..errors import InputError
from ..values import kind, plain

ENOUGH = 40
SHARE = 0.15


def divide(rows: Sequence[Row], label: Callable[[Row], Hashable], dev: Any, seed: int) -> tuple[list[Row], list[Row]]:
    """Rows to learn from, and dev rows, which have the labels in about the same proportions.

    Every label keeps a row to learn from; one that is seen once has no other.

    Args:
        dev: `auto` (15 % of 40 rows or more, else none), 0 or None for none (the last step is kept), a fraction below 1, or how
            many rows.

    Raises:
        InputError: something else; more rows than there are.
    """
    count = _count(dev, len(rows))
    if not count:
        return list(rows), []
    counts = Counter(map(label, rows))
    single = sorted(str(name) for name, number in counts.items() if number == 1)
    spare = [row for row in rows if counts[label(row)] > 1]
    if not spare:
        return list(rows), []
    if single and len(counts) > 1:
        shown = ", ".join(map(repr, single[:5])) + (" …" if len(single) > 5 else "")
        warnings.warn(
            f"labels that are seen once are learned from and never among the dev rows ({shown}); give more rows of them",
            UserWarning,
            stacklevel=2,
        )
    held = split(spare, {"dev": min(count, len(spare)), "train": None}, label, seed)["dev"]
    left = counts - Counter(map(label, held))
    for row in list(held):
        if left[label(row)] < 1:  # a share above one half may take all rows of a label
            held.remove(row)
            left[label(row)] += 1
    chosen = set(map(id, held))
    return [row for row in rows if id(row) not in chosen], held


def _count(dev: Any, rows: int) -> int:
    """Dev rows that are asked for."""
    dev = plain(dev)
    if isinstance(dev, str) and dev == "auto":
        return round(SHARE * rows) if rows >= ENOUGH else 0
    if dev is None or dev is False:
        return 0
    if isinstance(dev, (int, float)) and not isinstance(dev, bool):
        if 0 <= dev < 1:
            return round(dev * rows)
        if dev % 1 == 0 and 1 <= dev < rows:
            return int(dev)
        if dev >= 1:
            raise InputError(
                f"dev asks for {dev:g} of {rows} rows; leave some to learn from, or give a fraction below 1"
            )
    what = dev if isinstance(dev, (int, float, str)) else kind(dev)
    raise InputError(f"dev is {what!r}; expected 'auto', 0, a fraction below 1, a number of rows, or (X_dev, y_dev)")
