"""Whether the cells of a column hold several labels each: as lists, or as texts with one separator between the labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..values import is_blank, kind, plain, text_of

SEPARATORS = (";", "|", ",")
_FEWEST_ROWS = 3  # rows for each label, and rows with several labels
_LEAST_SHARE = 0.05  # of rows with several labels
_MOST_LABELS, _LONGEST_LABEL = 200, 30  # different labels of a column; mean characters of one
_MOST_WORDS = 3.0  # of a label, on average
_COMBINED = 2 / 3  # share of labels that stand in company, and in other company, too


@dataclass(frozen=True)
class SeveralLabels:
    """What the cells of a column hold.

    Attributes:
        separator: what stands between labels; None where cells are lists.
        counts: rows by label.
    """

    separator: str | None
    counts: Counter[str]


def several_labels(values: Sequence[Any], numbers: bool) -> SeveralLabels | None:
    """The labels of a column whose cells look like several labels; None where they do not.

    Cells are taken for it where a few short labels repeat, in one cell and in several, and stand in changing company. So
    sentences, `Paris, France` and `food, drinks` are no sets of labels.

    Args:
        values: of the cells that are not empty.
        numbers: all values are numbers, whose commas are decimal ones.
    """
    if values and all(isinstance(value, (list, tuple)) for value in values):
        rows = [_labels_of_list(value) for value in values]
        known = [row for row in rows if row is not None]
        return SeveralLabels(None, _counts(known)) if len(known) == len(rows) and _repeat(known) else None
    if not all(isinstance(value, str) for value in values):
        return None
    for separator in SEPARATORS:
        if separator == "," and numbers:
            continue
        known = [split_labels(value, separator) for value in values]
        if _repeat(known) and _vary(known) and _recombine(known):
            return SeveralLabels(separator, _counts(known))
    return None


def read_as_several(values: Sequence[Any]) -> SeveralLabels:
    """The labels of a column that is said to hold several, by the separator that most cells hold."""
    lists = [
        row for value in values if isinstance(value, (list, tuple)) and (row := _labels_of_list(value)) is not None
    ]
    if lists:
        return SeveralLabels(None, _counts(lists))
    texts = [text_of(value) for value in values if kind(value) in ("a text", "a number")]
    separator = max(SEPARATORS, key=lambda sign: sum(sign in text for text in texts))
    return SeveralLabels(separator, _counts([split_labels(text, separator) for text in texts]))


def split_labels(text: str, separator: str) -> list[str]:
    """The labels of a cell, as a task of type `multilabel` reads them."""
    return [label.strip() for label in text.split(separator) if not is_blank(label)]


def _labels_of_list(value: Sequence[Any]) -> list[str] | None:
    cells = [plain(one) for one in value]
    texts = all(kind(one) in ("a text", "a number") for one in cells)
    return [text_of(one) for one in cells] if texts else None


def _counts(rows: Sequence[Sequence[str]]) -> Counter[str]:
    return Counter(label for row in rows for label in {*row})


def _repeat(rows: Sequence[Sequence[str]]) -> bool:
    """Whether labels are few and short, each stands in several rows on average, and some rows have several."""
    counts = _counts(rows)
    several = sum(len({*row}) > 1 for row in rows)
    if not 2 <= len(counts) <= _MOST_LABELS or counts.total() < _FEWEST_ROWS * len(counts):
        return False
    if several < max(_FEWEST_ROWS, _LEAST_SHARE * len(rows)) or len(counts) > len(rows) // 2:
        return False
    characters = sum(map(len, counts)) / len(counts)
    words = sum(len(label.split()) for label in counts) / len(counts)
    return characters <= _LONGEST_LABEL and words <= _MOST_WORDS


def _vary(rows: Sequence[Sequence[str]]) -> bool:
    """Whether rows have different numbers of labels, none of them twice: `Paris, France` always has two."""
    return len({len(row) for row in rows}) > 1 and all(len({*row}) == len(row) for row in rows)


def _recombine(rows: Sequence[Sequence[str]]) -> bool:
    """Whether most labels that stand beside another stand in other sets, too: of `food, drinks` neither does."""
    company: dict[str, set[frozenset[str]]] = defaultdict(set)
    for row in rows:
        for label in row:
            company[label].add(frozenset(row))
    beside = {label for row in rows if len(row) > 1 for label in row}
    return sum(len(company[label]) > 1 for label in beside) >= _COMBINED * len(beside) > 0
