"""What the speed benchmark compares, and the rows that both sides are given."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import Any

from softprompt.benchmarks.speed.sweep import SWEEP

# the text that both sides start from; repeated or cut to the prompt's length, as PEFT does
INIT_TEXT = "Classify the sentiment of the movie review as positive or negative. "
LR = 5e-3
TEMPLATE = {"input": "Review: {{ text }}", "cue": "\nSentiment:", "answer": " {{ answer }}"}


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        tokens: about how long a text is.
        peer_method: a key of `PEERS`.
        peer_length: the peer's prompt length P (ours is in `method`); None where it has no prompt.
        same_loss: both sides compute the same thing, step by step.
        turn: our steps between two of the peer's; short steps follow one another, as they do in training.
        lr: of both sides' AdamW.
        upper: our method learns in the last third of the base's layers only.
    """

    name: str
    method: dict[str, Any]
    batch: int
    tokens: int
    peer_method: str = "prompt"
    peer_length: int | None = 20
    same_loss: bool = False
    turn: int = 1
    lr: float = LR
    upper: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For the worker processes."""
        return asdict(self)

    @property
    def size(self) -> int:
        """About how many tokens a step has, the prompt's once a row."""
        return self.batch * (self.tokens + int(self.method.get("length", 0)))

    @property
    def encodes(self) -> bool:
        """Whether texts are encoded before the steps."""
        return self.method["name"] == "infix" or "activate" in self.method

    @property
    def peer(self) -> str:
        """What ours is compared with, in words."""
        return PEERS[self.peer_method] + ("" if self.peer_length is None else f", P={self.peer_length}")


PEERS = {
    "prompt": "PEFT prompt tuning",
    "prefix": "PEFT prefix tuning",
    "p_tuning": "PEFT P-tuning",
    "lora": "PEFT LoRA",
    "alora": "PEFT activated LoRA",
    "ia3": "PEFT IA3",
    "full": "transformers, all weights",
    "plain": "transformers, forward",
    "features": "transformers, hidden states",
    "ours": "ours, all layers",
}
P_TUNING_HIDDEN = 256  # width of both sides' encoder


def _soft(length: int, name: str = "soft") -> dict[str, Any]:
    return {"name": name, "length": length, "init": "text", "text": INIT_TEXT}


_INFIX = {"name": "infix", "length": 10, "form": "kv", "cue": 1, "text": INIT_TEXT}
_PREFIX = _soft(20, "prefix")
_P_TUNING = {**_soft(20, "p_tuning"), "encoder": "mlp", "hidden": P_TUNING_HIDDEN}
LORA: dict[str, Any] = {
    "name": "lora",
    "r": 8,
    "alpha": 16,
    "dropout": 0.0,
}  # PEFT's own choice of modules on both sides
_ALORA = {**LORA, "activate": "cue"}

CASES = (
    Case("soft-p20", _soft(20), 16, 30, peer_length=20, same_loss=True),
    Case("soft-p100", _soft(100), 16, 30, peer_length=100, same_loss=True),
    Case("infix-short", _INFIX, 32, 30, turn=8),
    Case("infix-long", _INFIX, 8, 300, turn=8),
    Case("prefix", _PREFIX, 16, 30, "prefix", same_loss=True),
    Case("prefix-upper", _PREFIX, 16, 30, "ours", upper=True),
    Case("lora", LORA, 32, 30, "lora", None, same_loss=True, lr=5e-4),
    Case("alora", _ALORA, 32, 30, "alora", None, same_loss=True, turn=8, lr=5e-4),
    Case("full", {"name": "full"}, 32, 30, "full", None, same_loss=True, lr=2e-5),
)
# on request only: the default run takes 10 to 15 minutes as it is (P-tuning's step is that of soft prompts and a small encoder)
EXTRA = (
    Case("p_tuning", _P_TUNING, 16, 30, "p_tuning", lr=1e-3),
    Case("soft-b32", _soft(20), 32, 30, peer_length=20, same_loss=True),
    Case("ia3", {"name": "peft:IA3"}, 32, 30, "ia3", None, same_loss=True, lr=5e-3),
    Case("hard", {"name": "hard"}, 32, 30, "plain", None, same_loss=True),
    Case("probe", {"name": "probe"}, 32, 30, "features", None, same_loss=True),
)
MIXED, ENCODING = "mixed-batch", "encoding"
NAMES = (*(case.name for case in CASES), MIXED, *(case.name for case in EXTRA), ENCODING, SWEEP)
NO_PEER = {"joint": "several methods learned together: no peer trains them"}

# rows whose encoding is timed: (about how many tokens, how many rows), each three times
CHUNKS = (*((30, count) for count in (8, 16, 32, 64, 128)), (120, 8), (300, 8)) * 3


def rows_for(tokens: int, count: int) -> list[dict[str, str]]:
    """Real reviews, in turn again where there are not so many; for long texts several of the same label are joined."""
    from softprompt.data import get_source, read_rows

    rows = [row.values for row in read_rows(get_source("movie-reviews"))]
    random.Random(0).shuffle(rows)
    if tokens <= 40:
        return [{"text": row["text"], "label": row["label"]} for row in islice(cycle(rows), count)]
    joined: list[dict[str, str]] = []
    by_label = {label: [row["text"] for row in rows if row["label"] == label] for label in ("positive", "negative")}
    each = max(1, round(tokens / 26))  # a review has 26 tokens in the mean
    while len(joined) < count:
        label = ("positive", "negative")[len(joined) % 2]
        texts = [by_label[label].pop() for _ in range(each)]
        by_label[label] = texts + by_label[label]
        joined.append({"text": " ".join(texts), "label": label})
    return joined
