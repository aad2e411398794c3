"""A small separable task for training tests: does the text speak of good or of bad things?"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from models import VOCABULARY

from softprompt.answers import AnswerForm, Outcome, find_form
from softprompt.data import Row
from softprompt.tasks import Task
from softprompt.training import Prepared
from softprompt.types import Example

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


def examples(count: int = 7, longest: int = 20, seed: int = 0) -> list[Example]:
    """Ragged rows of ids; answers of one to three tokens."""
    rng = random.Random(seed)

    def ids(size):
        return tuple(rng.randrange(3, VOCABULARY) for _ in range(size))

    answers = (ids(1), ids(3), ids(2))
    sizes = [1, longest, *[rng.randint(1, longest) for _ in range(count - 2)]]
    return [Example(ids(size), answers, rng.randrange(3), f"row:{i}", {}) for i, size in enumerate(sizes)]


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Equal, relative to the scale of `b` where that is more than one."""
    scale = max(1.0, b.abs().max().item())
    assert (a - b).abs().max().item() <= tolerance * scale


def bound_form(task: Task, tokenizer, room: int, **how) -> AnswerForm:
    """The task's form of answers with a tokenizer and so many positions, without a base."""
    return find_form(task.form).of(task, tokenizer, room, **how)


def scores_of(found: list[Outcome]) -> torch.Tensor:
    """Scores of all labels, [B, K]."""
    return torch.tensor([list(item.scores.values()) for item in found])


def scores(ready: Prepared, split: str = "dev") -> torch.Tensor:
    """What a run's method gives the rows of a split, [B, K]."""
    return scores_of(ready.form.predict(ready, ready.splits[split]))


SLOW_RUN = """
import sys, time
sys.path.insert(0, {tests!r})
from softprompt.training import checkpoints, train
checkpoints.SECONDS = 0.0

def slow(what, done, total):
    print(done, flush=True)
    time.sleep(0.05)

"""
"""How a script begins whose run tells each step (`progress=slow`) and keeps a checkpoint of it; to be formatted (`tests`)."""


def killed_at(script: str, moment: int, checkpoint: Path, wait: float = 0.0) -> bool:
    """Run a script that prints its steps, and kill it from this one on, once there is a checkpoint; whether that was so."""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) >= moment and checkpoint.exists():
            time.sleep(wait)
            os.kill(process.pid, signal.SIGKILL)
            break
    return process.wait() == -signal.SIGKILL
