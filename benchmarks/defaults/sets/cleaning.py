"""What all sets share: which rows stay, how many are drawn, and how the file is written."""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import Iterable

LabelledText = tuple[str, str]
"""A text and its label."""

MAX_ROWS = 3000
MAX_WORDS = 120
SEED = 20240607
"""Draws the rows of a set and, where a set takes some labels only, these."""

_CHINESE = re.compile(r"[\u3400-\u9fff]")


def count_words(text: str) -> int:
    """Words by white space; in a text with Chinese characters each of these is one, and so is a Latin word beside them."""
    chinese = len(_CHINESE.findall(text))
    return chinese + len(_CHINESE.sub(" ", text).split())


def folded(text: str) -> str:
    """The text with a blank for each run of white space, and none at its ends."""
    return " ".join(text.split())


def keep(rows: Iterable[LabelledText]) -> list[LabelledText]:
    """Rows with white space folded, in their order; empty and long texts and copies go.

    A text that stands with two labels goes wholly.
    """
    labels_of: dict[str, set[str]] = {}
    for raw_text, raw_label in rows:
        text, label = folded(raw_text), folded(raw_label)
        if text and label and count_words(text) <= MAX_WORDS:
            labels_of.setdefault(text, set()).add(label)
    return [(text, next(iter(labels))) for text, labels in labels_of.items() if len(labels) == 1]


def draw(rows: list[LabelledText]) -> list[LabelledText]:
    """All rows, or `MAX_ROWS` of them in random order where there are more."""
    return rows if len(rows) <= MAX_ROWS else random.Random(SEED).sample(rows, MAX_ROWS)


def draw_labels(labels: Iterable[str], count: int) -> set[str]:
    """`count` of the labels; their order does not matter, copies do."""
    return set(random.Random(SEED).sample(sorted(labels), count))


def as_csv(rows: Iterable[LabelledText]) -> bytes:
    """A CSV file in UTF-8 with the columns `text` and `label`; its lines end in CR LF."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["text", "label"])
    writer.writerows(rows)
    return file.getvalue().encode("utf-8")
