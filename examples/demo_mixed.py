"""Rows of two tasks in one batch, each behind the prompt that it names."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import softprompt as sp

SHOWN = 4  # texts that are shown with their answers


@dataclass(frozen=True)
class Text:
    """A text, and the right answer by the prompt's name."""

    text: str
    right: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What a prompt answered, how likely it is, and whether it is right."""

    label: str
    probability: float
    right: bool

    def __str__(self) -> str:
        return f"{self.label} {100 * self.probability:.0f} %, {'right' if self.right else 'wrong'}"


@dataclass(frozen=True)
class Mixed:
    """What came of a batch in which every text is asked by every prompt.

    Attributes:
        rows: of the batch.
        same: how many of them get the same answer alone.
        apart: largest difference of a probability.
        seconds, alone: in one batch, and one row at a time.
        loading: seconds until all prompts were there.
        shown: the first texts, and their answers by the prompt's name.
    """

    rows: int
    same: int
    apart: float
    seconds: float
    alone: float
    loading: float
    shown: list[tuple[str, dict[str, Answer]]]

    def summary(self) -> str:
        """Is a batch of two tasks the same as its rows alone?"""
        return (
            f"{self.rows} rows of two tasks in one batch: {self.same} get the same answer as alone, probabilities differ by "
            f"at most {self.apart:.0e}; {self.seconds:.1f} s in one batch, {self.alone:.1f} s one by one"
        )


def answer_mixed(base: sp.Base, prompts: Mapping[str, Path], texts: Sequence[Text]) -> Mixed:
    """Ask every prompt about every text, all in one batch, and each row alone.

    Args:
        prompts: folders of artifacts by name.
    """
    runtime = sp.Runtime(base)
    began = time.perf_counter()
    for name, folder in prompts.items():
        runtime.add(name, folder)
    loading = time.perf_counter() - began
    rows = [{"text": text.text, "artifact": name} for text in texts for name in prompts]
    began = time.perf_counter()
    together = runtime.predict(rows)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    alone = [runtime.predict([row])[0] for row in rows]
    seconds_alone = time.perf_counter() - began
    pairs = list(zip(together, alone, strict=True))
    answers = iter(together)
    shown = []
    for text in texts[:SHOWN]:
        by_prompt = {}
        for name in prompts:
            one = next(answers)
            by_prompt[name] = Answer(one.label, one.probabilities[one.label], one.label == text.right[name])
        shown.append((text.text, by_prompt))
    return Mixed(
        rows=len(rows),
        same=sum(one.label == other.label for one, other in pairs),
        apart=max(
            abs(value - other.probabilities[label])
            for one, other in pairs
            for label, value in one.probabilities.items()
        ),
        seconds=seconds,
        alone=seconds_alone,
        loading=loading,
        shown=shown,
    )
