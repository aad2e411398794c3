"""Seeded splits: disjoint, stratified, and no text in two of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from ..config import suggest
from ..errors import DataError
from ..values import not_text, plain, text_of
from .readers import Row

PROPORTIONS = {"train": 70, "dev": 15, "test": 15}
LEAST = 8  # rows that can be divided in these proportions
_ORDER = ("test", "dev", "train")  # held-out rows first, so that they stay when only the training size changes


def split(
    rows: Sequence[Row],
    sizes: dict[str, int | float | None],
    label: Callable[[Row], Hashable],
    seed: int,
    group: str | Callable[[Row], str] | None = None,
) -> dict[str, list[Row]]:
    """Cut rows into splits whose label proportions follow the whole.

    Duplicates must have been left out before (see `deduplicate`). `test` is dealt first, then `dev`, then `train`; a
    smaller `train` of the same seed is the beginning of a larger one.

    Args:
        sizes: rows, a fraction below 1, or None for the rest (one part at most).
        group: a field (or a function that gives its value). Rows that share its value stay together, so a split may be
            a few rows larger than asked for. If every group has a single label, splits are stratified up to a group. If
            any group holds several labels, groups are drawn whatever their labels.

    Raises:
        DataError: fewer rows than asked for; the message says how many there are.
    """
    names = sorted(sizes, key=lambda name: (_ORDER.index(name) if name in _ORDER else -1, name))
    wanted = _counts({name: sizes[name] for name in names}, len(rows))
    if sum(value is None for value in wanted.values()) > 1:
        raise DataError("only one split can take the rest (null)")
    asked = sum(value or 0 for value in wanted.values())
    if asked > len(rows):
        shown = ", ".join(f"{name} {value}" for name, value in wanted.items() if value)
        raise DataError(
            f"splits ask for {asked} rows ({shown}), there are {len(rows)} different ones; make them smaller"
        )
    order = _interleaved(rows, label, seed) if group is None else _by_group(rows, label, group, seed)
    fixed, rest = [name for name in names if wanted[name] is not None], [name for name in names if wanted[name] is None]
    parts: dict[str, list[Row]] = {}
    at = 0
    for name in fixed:
        end = at + (wanted[name] or 0)
        while group is not None and at < end < len(order) and _same(order[end - 1], order[end], group):
            end += 1
        parts[name] = order[at:end]
        at = end
    for name in rest:
        parts[name] = order[at:]
    if group is not None and (empty := [name for name in fixed if wanted[name] and not parts[name]]):
        raise DataError(
            f"no rows are left for {' and '.join(empty)}: rows that data.split.group keeps together fill the other splits; ask "
            "for 0 rows of it, or group by something finer"
        )
    return {name: parts[name] for name in sizes}


def hold_out(rows: Sequence[Row], field: str, values: Sequence[str]) -> tuple[list[Row], list[Row]]:
    """Rows whose field has one of these values, and all others. A text may stand in both (see `apart`).

    Raises:
        DataError: there are none, with the values that occur.
    """
    found = [_written(row.values.get(field)) for row in rows]
    if not any(found):
        names = dict.fromkeys(name for row in rows[:100] for name in row.values)
        raise DataError(f"data.hold_out: no row has a text or number in field {field!r}{suggest(field, names)}")
    held = [row for row, forms in zip(rows, found, strict=True) if not forms.isdisjoint(values)]
    if not held:
        there = sorted({min(forms, key=len) for forms in found if forms})
        shown = ", ".join(map(repr, there[:12])) + (" …" if len(there) > 12 else "")
        raise DataError(f"data.hold_out: no row has {field} in {', '.join(map(repr, values))}; there are {shown}")
    return held, [row for row, forms in zip(rows, found, strict=True) if forms.isdisjoint(values)]


def has_value(rows: Sequence[Row], field: str, value: str) -> bool:
    """Whether the field of a row has this value, as `hold_out` compares them."""
    return any(value in _written(row.values.get(field)) for row in rows)


def _written(value: Any) -> frozenset[str]:
    """How a task file may write a value: 2019.0 as 2019, too, as columns of whole numbers that lack some hold such ones."""
    value = plain(value)
    if not_text(value) and not isinstance(value, bool):
        return frozenset()
    whole = isinstance(value, float) and value.is_integer()
    return frozenset((text_of(value), *((str(int(value)),) if whole else ())))


def few_shot(rows: Sequence[Row], k: int, label: Callable[[Row], Hashable], seed: int) -> list[Row]:
    """k demonstrations: as many of each label as possible, in seeded order.

    Raises:
        DataError: fewer rows than k.
    """
    if k > len(rows):
        raise DataError(f"{k} demonstrations asked for, there are {len(rows)} training rows")
    rng = np.random.default_rng(seed)
    by_label: dict[str, list[Row]] = {}
    for row in rows:
        by_label.setdefault(str(label(row)), []).append(row)
    piles = [[by_label[name][i] for i in rng.permutation(len(by_label[name]))] for name in sorted(by_label)]
    chosen: list[Row] = []
    while len(chosen) < k:
        chosen += [pile.pop() for pile in piles if pile][: k - len(chosen)]
    return [chosen[i] for i in rng.permutation(len(chosen))]


def _counts(sizes: Mapping[str, int | float | None], rows: int) -> dict[str, int | None]:
    """Sizes in rows. Fractions that sum to one take all rows: the largest remainders are rounded up."""
    if bad := [size for size in sizes.values() if size is not None and size < 0]:
        raise DataError(f"a split cannot have {bad[0]} rows")
    shares = {name: size * rows for name, size in sizes.items() if isinstance(size, float) and size < 1}
    total = sum(size for size in sizes.values() if isinstance(size, float) and size < 1)
    if total > 1 + 1e-9:
        raise DataError(f"the fractions of the splits sum to {total:.3g}; make them sum to 1 at most")
    whole = {name: round(share) for name, share in shares.items()}
    if total > 1 - 1e-9:
        whole = {name: math.floor(share + 1e-9) for name, share in shares.items()}
        left = rows - sum(whole.values())
        for name in sorted(shares, key=lambda name: whole[name] - shares[name])[:left]:
            whole[name] += 1
    return {name: None if size is None else whole.get(name, int(size)) for name, size in sizes.items()}


def in_proportion(sizes: Mapping[str, int | float | None], rows: int) -> dict[str, int | float | None]:
    """Sizes that a task file does not name, in proportion to what the named ones leave.

    Args:
        sizes: without those that are not named.

    Raises:
        DataError: fewer rows than could be divided.
    """
    if rows < LEAST:
        raise DataError(f"there are {rows} different rows, too few to be divided; name data.split.train, dev and test")
    named = _counts({name: size for name, size in sizes.items() if size is not None}, rows)
    left = max(0, rows - sum(size or 0 for size in named.values()))
    others = {name: share for name, share in PROPORTIONS.items() if name not in named}
    total = sum(others.values())
    found = {name: left * share // total for name, share in others.items()}
    first = next((name for name in others if name in sizes), None) or next(iter(others), None)  # it takes the rest
    if first is not None:
        found[first] += left - sum(found.values())
    return {**named, **found}


def _value(row: Row, group: str | Callable[[Row], str]) -> str | None:
    if callable(group):
        return group(row)
    value = row.values.get(group)
    return None if value is None else str(value)


def _same(one: Row, other: Row, group: str | Callable[[Row], str]) -> bool:
    return _value(one, group) == _value(other, group)  # as `_by_group` puts them together


def _by_group(
    rows: Sequence[Row], label: Callable[[Row], Hashable], group: str | Callable[[Row], str], seed: int
) -> list[Row]:
    """Groups in seeded order, each with its rows together; stratified where every group has one label.

    Raises:
        DataError: a row without the field.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        if (value := _value(row, group)) is None:
            raise DataError(f"{row.where}: has no field {group!r}, by which data.split.group keeps rows together")
        found.setdefault(value, []).append(row)
    groups = [found[name] for name in sorted(found)]
    pure = all(len({str(label(row)) for row in members}) == 1 for members in groups)
    return _spread(groups, (lambda members: str(label(members[0]))) if pure else (lambda members: ""), seed)


def _interleaved(rows: Sequence[Row], label: Callable[[Row], Hashable], seed: int) -> list[Row]:
    """One seeded order in which every stretch holds the labels in the whole's proportions, within one row."""
    return _spread([[row] for row in rows], lambda members: str(label(members[0])), seed)


def _spread(groups: Sequence[list[Row]], label: Callable[[list[Row]], str], seed: int) -> list[Row]:
    """The rows of the groups, one after the other, in a seeded order that may be cut anywhere.

    Each label's groups are spread evenly over 0..1, in proportion to their rows. Cutting the order is then a stratified
    cut, up to one group.
    """
    rng = np.random.default_rng(seed)
    by_label: dict[str, list[list[Row]]] = {}
    for members in groups:
        by_label.setdefault(label(members), []).append(members)
    placed: list[tuple[float, str, list[Row]]] = []
    for name in sorted(by_label):
        mine = [by_label[name][i] for i in rng.permutation(len(by_label[name]))]
        sizes = np.array([len(members) for members in mine])
        places = (sizes.cumsum() - sizes / 2) / sizes.sum()
        placed += [(place, name, members) for place, members in zip(places.tolist(), mine, strict=True)]
    return [row for _, _, members in sorted(placed, key=lambda item: item[:2]) for row in members]
