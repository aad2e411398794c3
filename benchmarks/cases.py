"""What the speed benchmark compares, and the rows that both sides are given."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

# the text that both sides start from; repeated or cut to the prompt's length, as PEFT does
INIT_TEXT = "Classify the sentiment of the movie review as positive or negative. "
LR = 5e-3
TEMPLATE = {"input": "Review: {{ text }}", "cue": "\nSentiment:", "answer": " {{ answer }}"}


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        tokens: about how long a text is.
        peer_length: the peer's prompt length P (ours is in `method`).
        same_loss: both sides compute the same thing, step by step.
        turn: our steps between two of the peer's; short steps follow one another, as they do in training.
    """

    name: str
    method: dict[str, Any]
    batch: int
    tokens: int
    peer_method: str = "prompt"
    peer_length: int = 20
    same_loss: bool = False
    turn: int = 1

    def as_dict(self) -> dict[str, Any]:
        """For the worker processes."""
        return asdict(self)


def _soft(length: int) -> dict[str, Any]:
    return {"name": "soft", "length": length, "init": "text", "text": INIT_TEXT}


_INFIX = {"name": "infix", "length": 10, "form": "kv", "cue": 1, "text": INIT_TEXT}

CASES = (
    Case("soft-p20", _soft(20), 16, 30, peer_length=20, same_loss=True),
    Case("soft-p100", _soft(100), 16, 30, peer_length=100, same_loss=True),
    Case("infix-short", _INFIX, 32, 30, turn=8),
    Case("infix-long", _INFIX, 8, 300, turn=8),
)
MIXED = "mixed-batch"
NAMES = (*(case.name for case in CASES), MIXED)


def rows_for(tokens: int, count: int) -> list[dict[str, str]]:
    """Real reviews; for long texts several of the same label are joined to about this many tokens."""
    from softprompt.data import get_source, read_rows

    rows = [row.values for row in read_rows(get_source("movie-reviews"))]
    random.Random(0).shuffle(rows)
    if tokens <= 40:
        return [{"text": row["text"], "label": row["label"]} for row in rows[:count]]
    joined = []
    by_label = {label: [row["text"] for row in rows if row["label"] == label] for label in ("positive", "negative")}
    each = max(1, round(tokens / 26))  # a review has 26 tokens in the mean
    while len(joined) < count:
        label = ("positive", "negative")[len(joined) % 2]
        texts = [by_label[label].pop() for _ in range(each)]
        by_label[label] = texts + by_label[label]
        joined.append({"text": " ".join(texts), "label": label})
    return joined
