"""Which rows are the same, which contradict each other, and which stand in two splits."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import DataError
from .readers import Row

_COUNTS = ("copies", "contradicting", "held_out", "unlabelled", "leaked", "unusable")


@dataclass(frozen=True)
class Duplicates:
    """Rows that were left out.

    Attributes:
        copies: further copies of a row.
        contradicting: rows of equal content with different labels.
        held_out: rows whose text or group is held out (see `apart`).
        unlabelled: rows without an answer, where these are left out.
        leaked: rows of a split whose text is held out in another one, where these are left out.
        unusable: rows that cannot be used (empty or missing cells, an unknown label), where these are left out.
        examples: one of each, by place.
    """

    copies: int = 0
    contradicting: int = 0
    held_out: int = 0
    unlabelled: int = 0
    leaked: int = 0
    unusable: int = 0
    examples: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in _COUNTS)

    def __add__(self, other: Duplicates) -> Duplicates:
        summed = {name: getattr(self, name) + getattr(other, name) for name in _COUNTS}
        return Duplicates(**summed, examples=self.examples + other.examples)

    def __str__(self) -> str:
        said = (
            (self.copies, "rows that are copies of other rows"),
            (self.contradicting, "rows that ask the same as others and have different labels"),
            (self.held_out, "rows whose text or group is among the held-out ones"),
            (self.unlabelled, "rows without a label"),
            (self.leaked, "rows whose text is held out in another split"),
            (self.unusable, "rows that cannot be used"),
        )
        shown = f" (e.g. {'; '.join(self.examples)})" if self.examples else ""
        return ", ".join(f"{count} {what}" for count, what in said if count) + shown


def normalize(text: str) -> str:
    """A text after NFKC, case folding and collapsing white space; texts that then are equal are near-copies."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def deduplicate(
    rows: Sequence[Row], text: Callable[[Row], str], answer: Callable[[Row], Hashable], several: bool = False
) -> tuple[list[Row], Duplicates]:
    """The first row of each text and answer.

    Args:
        text: everything that is read of a row; rows are copies only if it is equal to the letter.
        several: a text may have several right answers (references). Otherwise rows of one text with different answers
            contradict each other, and all of them are left out.
    """
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(text(row), []).append(place)
    kept: set[int] = set()
    copies = contradicting = 0
    examples: dict[str, str] = {}
    for group in groups.values():
        first: dict[Hashable, int] = {}  # places, because one row may stand in several
        for place in group:
            if (other := first.setdefault(answer(rows[place]), place)) != place:
                examples.setdefault("copy", f"{rows[place].where} is {rows[other].where} again")
        if len(first) > 1 and not several:
            contradicting += len(group)
            one, other = list(first.values())[:2]
            examples.setdefault("contradiction", f"{rows[one].where} and {rows[other].where} have different labels")
            continue
        copies += len(group) - len(first)
        kept.update(first.values())
    found = Duplicates(copies, contradicting, examples=tuple(examples.values()))
    return [rows[place] for place in sorted(kept)], found


def apart(
    held: Sequence[Row],
    others: Sequence[Row],
    text: Callable[[Row], str],
    answer: Callable[[Row], Hashable],
    group: str | None = None,
    several: bool = False,
) -> tuple[list[Row], list[Row], Duplicates]:
    """Held-out rows and the others, each without duplicates, and no text (nor group) in both: there the held-out row stays.

    Args:
        group: a field; of the others, rows that share its value with a held-out one are left out too.
        text, answer, several: as in `deduplicate`.
    """
    held, of_held = deduplicate(held, text, answer, several)
    others, of_others = deduplicate(others, text, answer, several)
    texts = {text(row) for row in held}
    groups = {str(value) for row in held if group and (value := row.values.get(group)) is not None}
    free = [row for row in others if text(row) not in texts and not (group and str(row.values.get(group)) in groups)]
    return held, free, of_held + of_others + Duplicates(held_out=len(others) - len(free))


def leaks(splits: Mapping[str, Sequence[Row]], text: Callable[[Row], str]) -> dict[str, list[tuple[Row, Row]]]:
    """By split, rows whose text stands in an earlier split too, each with the first row there."""
    seen: dict[str, Row] = {}
    found: dict[str, list[tuple[Row, Row]]] = {}
    for name, rows in splits.items():
        mine = [(text(row), row) for row in rows]
        found[name] = [(row, seen[key]) for key, row in mine if key in seen]
        for key, row in mine:
            seen.setdefault(key, row)
    return found


def refuse_leaks(splits: Mapping[str, Sequence[Row]], text: Callable[[Row], str]) -> None:
    """Splits that come from files of their own hold different texts.

    Raises:
        DataError: every row that stands in an earlier split too.
    """
    leaked = [
        f"{row.where}: the text of this {name} row is in {other.where}"
        for name, pairs in leaks(splits, text).items()
        for row, other in pairs
    ]
    if leaked:
        raise DataError(
            f"{len(leaked)} rows are held out in another split too; remove them from one, or set data.skip_leaked: true",
            leaked,
        )


def near(splits: Mapping[str, Sequence[Row]], text: Callable[[Row], str]) -> str | None:
    """Rows of a split whose texts differ from those of another one in case, width or white space only, as one line; or None.

    Args:
        splits: those that are held out first.
    """
    found = [pair for pairs in leaks(splits, lambda row: normalize(text(row))).values() for pair in pairs]
    if not found:
        return None
    row, other = found[0]
    return (
        f"{len(found)} rows differ from held-out ones in case, width or white space only, the first {row.where} from "
        f"{other.where}; they are kept"
    )
