"""Seeded splits: disjoint, stratified, and no text in two of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .readers import Row

_ORDER = ("test", "dev", "train")  # held-out rows first, so that they stay when only the training size changes


@dataclass(frozen=True)
class Duplicates:
    """What was left out: further copies of a text, and texts whose copies disagree on the label."""

    copies: int
    contradicting: int


def normalize(text: str) -> str:
    """What makes two texts the same: NFKC, case folded, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def deduplicate(
    rows: Sequence[Row], text: Callable[[Row], str], label: Callable[[Row], Hashable]
) -> tuple[list[Row], Duplicates]:
    """The first row of each text; texts whose copies carry different labels are left out altogether."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(normalize(text(row)), []).append(row)
    agreed = [group for group in groups.values() if len({label(row) for row in group}) == 1]
    kept = [group[0] for group in agreed]
    return kept, Duplicates(sum(len(group) - 1 for group in agreed), len(groups) - len(agreed))


def split(
    rows: Sequence[Row],
    sizes: dict[str, int | float | None],
    label: Callable[[Row], Hashable],
    seed: int,
    group: str | None = None,
) -> dict[str, list[Row]]:
    """Cut rows into parts whose label proportions follow the whole.

    Duplicates must have been left out before (see `deduplicate`). `test` is dealt first, then `dev`, then `train`; a
    smaller `train` of the same seed is the beginning of a larger one.

    Args:
        sizes: rows, a fraction below 1, or None for the rest (one part at most).
        group: a field; rows that share its value stay together, so parts may be a few rows larger than asked for.

    Raises:
        DataError: more asked for than there is; says how many there are.
    """
    names = sorted(sizes, key=lambda name: (_ORDER.index(name) if name in _ORDER else -1, name))
    wanted = {name: _count(sizes[name], len(rows)) for name in names}
    if sum(value is None for value in wanted.values()) > 1:
        raise DataError("only one split can take the rest (null)")
    asked = sum(value or 0 for value in wanted.values())
    if asked > len(rows):
        shown = ", ".join(f"{name} {value}" for name, value in wanted.items() if value)
        raise DataError(
            f"splits ask for {asked} rows ({shown}), there are {len(rows)} different ones; make them smaller"
        )
    order = _interleaved(rows, label, seed) if group is None else _by_group(rows, group, seed)
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
    return {name: parts[name] for name in sizes}


def hold_out(rows: Sequence[Row], field: str, values: Sequence[str]) -> tuple[list[Row], list[Row]]:
    """Rows whose field has one of these values, and all others.

    Texts must be different (see `deduplicate`).

    Raises:
        DataError: there are none, with the values that occur.
    """
    held = [row for row in rows if str(row.values.get(field)) in values]
    if not held:
        found = sorted({str(row.values.get(field)) for row in rows})
        shown = ", ".join(map(repr, found[:12])) + (" …" if len(found) > 12 else "")
        raise DataError(f"data.hold_out: no row has {field} in {', '.join(map(repr, values))}; there are {shown}")
    return held, [row for row in rows if str(row.values.get(field)) not in values]


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


def _count(size: int | float | None, rows: int) -> int | None:
    if size is None:
        return None
    if size < 0:
        raise DataError(f"a split cannot have {size} rows")
    return round(size * rows) if isinstance(size, float) and size < 1 else int(size)


def _same(one: Row, other: Row, group: str) -> bool:
    return str(one.values.get(group)) == str(other.values.get(group))  # as `_by_group` puts them together


def _by_group(rows: Sequence[Row], group: str, seed: int) -> list[Row]:
    """Groups in seeded order, each with its rows together.

    Raises:
        DataError: a row without the field.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.values.get(group) is None:
            raise DataError(f"{row.where}: has no field {group!r}, by which data.split.group keeps rows together")
        found.setdefault(str(row.values[group]), []).append(row)
    names = sorted(found)
    return [row for place in np.random.default_rng(seed).permutation(len(names)) for row in found[names[place]]]


def _interleaved(rows: Sequence[Row], label: Callable[[Row], Hashable], seed: int) -> list[Row]:
    """One seeded order in which every stretch holds the labels in the whole's proportions.

    Each label's rows are spread evenly over 0..1; cutting the order anywhere is then a stratified cut, within one row.
    """
    rng = np.random.default_rng(seed)
    by_label: dict[str, list[Row]] = {}
    for row in rows:
        by_label.setdefault(str(label(row)), []).append(row)
    placed: list[tuple[float, str, Row]] = []
    for name in sorted(by_label):
        mine = by_label[name]
        order = rng.permutation(len(mine))
        placed += [((place + 0.5) / len(mine), name, mine[i]) for place, i in enumerate(order)]
    return [row for _, _, row in sorted(placed, key=lambda item: item[:2])]
