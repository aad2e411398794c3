"""F1 of spans that words are tagged with, as the evaluation of CoNLL 2000 to 2003 has it (`conlleval`).

A tag is `O` (nothing), `B-x` (begins a span of x), `I-x` (inside of one), or `x` alone. `x` is read as `I-x`, so
neighbouring words with the tag `x` are one span. An `I-x` behind anything but a span of x begins one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from .measures import Measured, jackknife, score_of_sums

OUTSIDE = "O"

Tags = Sequence[str]


def spans_of(tags: Tags) -> list[tuple[str, int, int]]:
    """Spans of a row's tags, in order: (label, first word, word behind the last)."""
    spans: list[tuple[str, int, int]] = []
    for place, tag in enumerate(tags):
        begins, label = label_of(tag)
        if label is None:
            continue
        if not begins and spans and spans[-1][0] == label and spans[-1][2] == place:
            spans[-1] = (label, spans[-1][1], place + 1)
        else:
            spans.append((label, place, place + 1))
    return spans


def label_of(tag: str) -> tuple[bool, str | None]:
    """Whether a tag always begins a span, and its label (None: it stands for nothing)."""
    if tag == OUTSIDE:
        return False, None
    return tag.startswith("B-"), tag[2:] if tag.startswith(("B-", "I-")) else tag


def span_f1(gold: Sequence[Tags], predicted: Sequence[Tags]) -> Measured:
    """Micro-averaged F1 over the spans of all rows; right is a span of the same label and borders (0 if there is none at all).

    Rows are resampled, not spans: those of one row go together.
    """
    counts = _counts(gold, predicted)
    point = _f1(counts.sum(axis=0).tolist())
    return Measured(point, score_of_sums(point, counts, _f1))


def span_f1_rows(gold: Sequence[Tags], predicted: Sequence[Tags]) -> np.ndarray:
    """Jackknife pseudo-values of `span_f1` [n]."""
    counts = _counts(gold, predicted)
    sums = counts.sum(axis=0)
    return jackknife(_f1(sums.tolist()), np.array([_f1(left) for left in (sums - counts).tolist()]))


def span_f1_of_majority(gold: Sequence[Tags]) -> float:
    """What always giving the most frequent tag has; 0 if that is `O`."""
    tag = Counter(tag for tags in gold for tag in tags).most_common(1)[0][0]
    return span_f1(gold, [[tag] * len(tags) for tags in gold]).value


def _counts(gold: Sequence[Tags], predicted: Sequence[Tags]) -> np.ndarray:
    """Of each row the spans that are right, predicted, and in gold [n, 3].

    Raises:
        ValueError: a row has other tags in number.
    """
    rows = []
    for right, mine in zip(gold, predicted, strict=True):
        if len(right) != len(mine):
            raise ValueError(f"a row has {len(right)} words, of which {len(mine)} are tagged")
        both = set(spans_of(right)), set(spans_of(mine))
        rows.append((len(both[0] & both[1]), len(both[1]), len(both[0])))
    return np.array(rows, dtype=np.int64)


def _f1(sums: Sequence[int]) -> float:
    right, predicted, there = sums
    return 2 * right / (predicted + there) if predicted + there else 0.0
