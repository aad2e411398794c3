"""What the columns of a file hold, and what each of them may be for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..data import Row
from ..values import is_blank, kind, not_text, plain, text_of
from .sets import SeveralLabels, several_labels

LABEL_NAMES = ("label", "labels", "class", "category", "target", "intent", "sentiment", "topic", "gold", "y")
TEXT_NAMES = ("text", "sentence", "message", "content", "review", "body", "comment", "description")
_MOST_LABELS, _LONGEST_LABEL = 200, 40  # values of a column; mean characters of one
_NUMBER = re.compile(r"[-+]?\d[\d\s.,:/TZeE+-]*")
_MOST_NUMBERS = 20  # values of a column of numbers, of which more are measures or keys


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        filled: rows that have something in it.
        counts: rows by value, of texts and numbers; empty where it holds lists or objects.
        characters: of a value, on average.
        numbers: all values are numbers, dates or times.
        holds: what it holds, in JSON's words.
        several: its labels, where cells hold several each.
    """

    name: str
    filled: int
    counts: Counter[str]
    characters: float
    numbers: bool
    holds: str
    several: SeveralLabels | None = None

    @property
    def may_be_label(self) -> bool:
        """Few short values, each of which stands in several rows."""
        distinct = len(self.counts)
        most = _MOST_NUMBERS if self.numbers else _MOST_LABELS
        repeated = 2 <= distinct <= min(most, self.filled // 2)
        return repeated and self.characters <= _LONGEST_LABEL

    @property
    def may_be_text(self) -> bool:
        """Texts of several words, or of some length, that seldom repeat."""
        if not self.counts or self.numbers or self.several is not None or len(self.counts) < 0.3 * self.filled:
            return False
        words = sum(" " in value.strip() for value in self.counts) / len(self.counts)
        wide = sum(any(sign >= "\u2e80" for sign in value) for value in self.counts) / len(self.counts)
        return words >= 0.5 or wide >= 0.5

    def __str__(self) -> str:
        if self.several is not None:
            return f"{self.name} (several of {len(self.several.counts)} labels in a cell)"
        if not self.counts:
            return f"{self.name} ({self.holds})" if self.filled else f"{self.name} (empty)"
        if self.may_be_text:
            return f"{self.name} (texts of {self.characters:.0f} characters)"
        many = "value" if len(self.counts) == 1 else "values"
        return f"{self.name} ({len(self.counts)} {many})"


def columns_of(rows: Sequence[Row]) -> list[Column]:
    """All columns of the rows, in their order."""
    names = dict.fromkeys(name for row in rows for name in row.values)
    return [_column(name, (row.values.get(name) for row in rows)) for name in names]


def label_of(value: Any) -> str | None:
    """A label as a task names it, or None where a cell holds none."""
    value = plain(value)
    if value is None or (kind(value) == "NaN"):
        return None
    if isinstance(value, float) and value.is_integer():  # a column of whole numbers in which some are missing
        value = int(value)
    if not_text(value) and not isinstance(value, bool):
        return None
    return None if is_blank(text := text_of(value)) else text


def _column(name: str, values: Iterable[Any]) -> Column:
    there = [value for value in map(plain, values) if value is not None and kind(value) != "NaN"]
    there = [value for value in there if not (isinstance(value, str) and is_blank(value))]
    texts = [text for value in there if (text := label_of(value)) is not None]
    other = [kind(value) for value in there if label_of(value) is None]
    if other or not texts:
        holds = other[0] if other else "nothing"
        return Column(name, len(there), Counter(), 0.0, False, holds, several_labels(there, False))
    mean, numbers = sum(map(len, texts)) / len(texts), all(map(_NUMBER.fullmatch, texts))
    return Column(name, len(there), Counter(texts), mean, numbers, "text", several_labels(there, numbers))
