"""The ways that are tried, the simplest first, and the suite of `bench compare` that tries them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprompt.benchmarks.compare.suite import SuiteSpec, label_of
from softprompt.config import parse
from softprompt.proposal import Proposal
from softprompt.runfile import BaseSpec

FOLDS = 3
SHOTS = 8
DEV = 0.15  # of the labels, to choose the step that is kept: as the estimators set aside
LEAST_LABELS = 8  # of a point of the learning curve
NAMES = {"minilm": "MiniLM", "smollm2": "SmolLM2"}


@dataclass(frozen=True)
class Way:
    """One way to learn the labels.

    Attributes:
        contender: its name in the suite.
        base: that it runs on; None: it needs none.
        title: in plain words.
        settings: of the contender.
        curve: it learns in seconds, so it is tried on fewer labels, too.
        dear: it is trained step by step, so it runs as far as the time suffices.
    """

    contender: str
    base: str | None
    title: str
    settings: dict[str, Any]
    curve: bool = False
    dear: bool = False

    @property
    def key(self) -> tuple[str, str | None]:
        """What tells it from the others."""
        return self.contender, self.base


def ways_of(encoder: str, causal: str) -> list[Way]:
    """All ways, the simplest first: what is cheaper to train, to serve and to explain."""
    probe = {"method": "probe"}
    return [
        Way("majority", None, "majority", {"kind": "majority"}),
        Way("tfidf", None, "TF-IDF + logistic regression", {"kind": "tfidf"}, curve=True),
        Way("probe", encoder, f"probe on {shown(encoder)}", probe, curve=True),
        Way("zero-shot", causal, "zero-shot", {"method": "hard", "demonstrations": 0, "optional": True}),
        Way("probe", causal, f"probe on {shown(causal)}", probe, curve=True),
        Way(
            f"{SHOTS}-shot",
            causal,
            f"{SHOTS} examples in the prompt",
            {"method": "hard", "demonstrations": SHOTS, "optional": True},
        ),
        Way("infix", causal, "infix prompt", {"method": "infix"}, dear=True),
        Way("lora-cue", causal, "activated LoRA", {"method": {"name": "lora", "activate": "cue"}}, dear=True),
    ]


def shown(base: str) -> str:
    """A base's name for people."""
    return NAMES.get(base, Path(base).name)


def suite_for(proposal: Proposal, ways: Sequence[Way], rows: int, folds: int = FOLDS) -> SuiteSpec:
    """The suite: each of so many rows is tested once, all of its labels but those of its fold are learned from.

    Args:
        rows: drawn from the file's.
    """
    task = proposal.task
    labels = rows - -(-rows // folds)
    sizes = [
        size for size in (labels, labels // 2, labels // 4) if size >= max(LEAST_LABELS, 2 * len(task["verbalizer"]))
    ]
    bases = list(dict.fromkeys(way.base for way in ways if way.base is not None))
    asked: dict[str, dict[str, Any]] = {}
    for way in ways:
        on = label_of(BaseSpec(name=way.base or bases[0]))
        if way.contender in asked:
            asked[way.contender]["bases"].append(on)
            continue
        asked[way.contender] = {"name": way.contender, **way.settings, "bases": [on]}
        if way.curve:
            asked[way.contender]["sizes"] = sizes or [labels]
    held = {
        "name": f"try-{task['name'][:36]}",
        "bases": bases,
        "tasks": [task],
        "draws": "folds",
        "seeds": list(range(folds)),
        "sizes": [labels],
        "dev": DEV,
        "test": rows,
        "search": {"trials": 1},
        "few_shot": SHOTS,
        "without": ["lora", "full"],
        "contenders": list(asked.values()),
        "reference": "probe",
    }
    return parse(SuiteSpec, held, "softprompt try")
