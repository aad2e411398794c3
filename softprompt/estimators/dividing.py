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


def divide(
    rows: Sequence[Row],
    label: Callable[[Row], Hashable],
    dev: Any,
    seed: int,
    content: Callable[[Row], Hashable] = id,
) -> tuple[list[Row], list[Row]]:
    """Rows to learn from, and dev rows, which have the labels in about the same proportions.

    Every label keeps a row to learn from, also a label with a single row. Copies stay together, because dev rows that
    were learned from say nothing.

    Args:
        dev: a fraction below 1, a number of rows, or 0 or None for none (the last step is kept). `auto`: 15 % of the
            rows if there are 40 or more, else none. Copies may make them a few more.
        content: what copies share.

    Raises:
        InputError: something else; more rows than there are.
    """
    count = _count(dev, len(rows))
    if not count:
        return list(rows), []
    copies: dict[Hashable, list[Row]] = {}
    for row in rows:
        copies.setdefault(content(row), []).append(row)
    labels = {one: set(map(label, group)) for one, group in copies.items()}
    counts = Counter(name for names in labels.values() for name in names)
    single = sorted(str(name) for name, number in counts.items() if number == 1)
    free = [one for one, names in labels.items() if all(counts[name] > 1 for name in names)]
    if not free:
        return list(rows), []
    if single and len(counts) > 1:
        shown = ", ".join(map(repr, single[:5])) + (" …" if len(single) > 5 else "")
        warnings.warn(
            f"labels with a single row (copies count as one) are trained on and never in the dev rows ({shown}); give more "
            "rows of them",
            UserWarning,
            stacklevel=2,
        )
    # a text with more copies than there are to be dev rows would take the place of all others
    small = [one for one in free if len(copies[one]) <= count]
    spare = [row for one in small or free for row in copies[one]]
    group = (lambda row: str(content(row))) if len(copies) < len(rows) else None
    held = split(spare, {"dev": min(count, len(spare)), "train": None}, label, seed, group)["dev"]
    chosen = dict.fromkeys(map(content, held))
    left = counts - Counter(name for one in chosen for name in labels[one])
    for one in list(chosen):
        if any(left[name] < 1 for name in labels[one]):  # a share above one half may take all rows of a label
            del chosen[one]
            left.update(labels[one])
    return [row for row in rows if content(row) not in chosen], [row for row in held if content(row) in chosen]


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
