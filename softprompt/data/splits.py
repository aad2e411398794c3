"""Seeded splits: disjoint, stratified, and no text in two of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .readers import Row

_ORDER = ("test", "dev", "train")  # held-out rows first, so that they stay when only the training size changes


@dataclass(frozen=True)
class Duplicates:
    """What was left out.

    Attributes:
        copies: further copies of a text.
        contradicting: texts whose copies disagree on the label.
        held_out: rows whose text or group is held out (see `apart`).
    """

    copies: int
    contradicting: int
    held_out: int = 0

    def __bool__(self) -> bool:
        return bool(self.copies or self.contradicting or self.held_out)

    def __str__(self) -> str:
        said = [
            f"{self.copies} copies of other rows",
            f"{self.contradicting} texts whose copies have different labels",
            *([f"{self.held_out} rows whose text or group is among the held-out ones"] if self.held_out else []),
        ]
        return ", ".join(said)


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
        group: a field; rows that share its value stay together, so parts may be a few rows larger than asked for. Groups
            whose rows have one label each are dealt out by it, so that parts are stratified up to a group; as soon as one
            group holds several labels, they are drawn whatever their labels.

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
    return {name: parts[name] for name in sizes}


def hold_out(rows: Sequence[Row], field: str, values: Sequence[str]) -> tuple[list[Row], list[Row]]:
    """Rows whose field has one of these values, and all others. A text may stand in both (see `apart`).

    Raises:
        DataError: there are none, with the values that occur.
    """
    held = [row for row in rows if str(row.values.get(field)) in values]
    if not held:
        found = sorted({str(row.values.get(field)) for row in rows})
        shown = ", ".join(map(repr, found[:12])) + (" …" if len(found) > 12 else "")
        raise DataError(f"data.hold_out: no row has {field} in {', '.join(map(repr, values))}; there are {shown}")
    return held, [row for row in rows if str(row.values.get(field)) not in values]


def apart(
    held: Sequence[Row],
    others: Sequence[Row],
    text: Callable[[Row], str],
    label: Callable[[Row], Hashable],
    group: str | None = None,
) -> tuple[list[Row], list[Row], Duplicates]:
    """Held-out rows and the others, each without duplicates, and no text (nor group) in both: there the held-out row stays.

    Args:
        group: a field; of the others, rows that share its value with a held-out one are left out too.
    """
    held, of_held = deduplicate(held, text, label)
    others, of_others = deduplicate(others, text, label)
    texts = {normalize(text(row)) for row in held}
    groups = {str(value) for row in held if group and (value := row.values.get(group)) is not None}
    free = [
        row
        for row in others
        if normalize(text(row)) not in texts and not (group and str(row.values.get(group)) in groups)
    ]
    copies, contradicting = of_held.copies + of_others.copies, of_held.contradicting + of_others.contradicting
    return held, free, Duplicates(copies, contradicting, len(others) - len(free))


def refuse_leaks(splits: Mapping[str, Sequence[Row]], text: Callable[[Row], str]) -> None:
    """Splits that come from files of their own hold different texts.

    Raises:
        DataError: every row that stands in an earlier split too.
    """
    seen: dict[str, Row] = {}
    leaked = []
    for name, rows in splits.items():
        mine = [(normalize(text(row)), row) for row in rows]
        leaked += [
            f"{row.where}: the text of this {name} row is in {seen[key].where}" for key, row in mine if key in seen
        ]
        seen.update(mine)
    if leaked:
        raise DataError(f"{len(leaked)} rows are held out in another split too; remove them from one", leaked)


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


def _by_group(rows: Sequence[Row], label: Callable[[Row], Hashable], group: str, seed: int) -> list[Row]:
    """Groups in seeded order, each with its rows together; stratified where every group has one label.

    Raises:
        DataError: a row without the field.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.values.get(group) is None:
            raise DataError(f"{row.where}: has no field {group!r}, by which data.split.group keeps rows together")
        found.setdefault(str(row.values[group]), []).append(row)
    groups = [found[name] for name in sorted(found)]
    pure = all(len({str(label(row)) for row in members}) == 1 for members in groups)
    return _spread(groups, (lambda members: str(label(members[0]))) if pure else (lambda members: ""), seed)


def _interleaved(rows: Sequence[Row], label: Callable[[Row], Hashable], seed: int) -> list[Row]:
    """One seeded order in which every stretch holds the labels in the whole's proportions, within one row."""
    return _spread([[row] for row in rows], lambda members: str(label(members[0])), seed)


def _spread(groups: Sequence[list[Row]], label: Callable[[list[Row]], str], seed: int) -> list[Row]:
    """The rows of the groups, one after the other, in a seeded order that may be cut anywhere.

    Each label's groups are spread evenly over 0..1, a group taking as much of it as it has rows; cutting the order is then a
    stratified cut, within one group.
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
