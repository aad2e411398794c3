"""A small separable task for training tests: does the text speak of good or of bad things?"""

from __future__ import annotations

import random

from softprompt.data import Row
from softprompt.tasks import Task

GOOD, BAD = ["joy", "sun", "gift", "hope"], ["pain", "rain", "loss", "mud"]


def tiny_task(**changes) -> Task:
    """A task of two labels; one label word has several tokens in the byte tokenizer, as both have."""
    return Task.load(
        {
            "name": "tiny",
            "template": {"instruction": "Good or bad? ", "input": "Text: {{ text }}", "cue": "\nIt is:"},
            "verbalizer": {"good": "good", "bad": "bad"},
            **changes,
        }
    )


def tiny_rows(train: int = 24, dev: int = 12, test: int = 12, seed: int = 0) -> dict[str, list[Row]]:
    """Rows whose words say the label."""
    rng = random.Random(seed)

    def row(split: str, place: int) -> Row:
        label = ("good", "bad")[place % 2]
        words = [rng.choice(GOOD if label == "good" else BAD) for _ in range(rng.randint(1, 5))]
        return Row({"text": " ".join(words) + f" {place}", "label": label}, f"{split}:{place + 1}")

    return {
        name: [row(name, i) for i in range(size)] for name, size in (("train", train), ("dev", dev), ("test", test))
    }
