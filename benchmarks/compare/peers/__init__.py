"""Peers: rows of the comparison that other libraries train, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from softprompt.config import Strict, parse
from softprompt.errors import MissingExtraError, SoftpromptError

SIDE = "softprompt.benchmarks.compare.peers.setfit_side"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


class LabelledText(Strict):
    """A row as SetFit takes it: one text and its label."""

    text: str = Field(min_length=1)
    label: str


class SetFitRequest(Strict):
    """What SetFit is trained on and how; defaults are SetFit 1.2.0's own where not said otherwise.

    Attributes:
        train, dev, tests: rows; dev and tests are only answered.
        labels: all that there are, in the order of the answer's probabilities.
        seed: of dropout and the order of pairs. Which pairs are drawn does not depend on it (SetFit fixes that seed).
        lr: of the body, in the contrastive phase.
        base: bundled name or folder of an encoder.
        threads: of the processor; null: as many as the calling process uses.
        batch_size: pairs of a step.
        epochs: over the pairs; the number of pairs grows with the square of the rows.
        iterations: draws 2 · iterations pairs a row instead (SetFit before 1.0, and Tunstall et al. 2022, took 20).
        max_steps: optimizer steps at most; of more pairs, as many as these steps take are drawn. SetFit's own is null, no end:
            9 steps for 16 rows of two labels, 132 for 64, 520 for 128 (short reviews: 1.5 s each on one core).
        share: of the steps that this makes, those that a trial makes.
        sampling: how pairs are drawn without `iterations`.
        max_length: tokens of a text, the rest is cut; 256 is what all-MiniLM-L6-v2 is published with.
    """

    train: list[LabelledText] = Field(min_length=2)
    dev: list[LabelledText] = Field(default_factory=list)
    tests: dict[str, list[LabelledText]] = Field(default_factory=dict)
    labels: list[str] = Field(min_length=2)
    seed: int = Field(default=42, ge=0)
    lr: PositiveFloat = 2e-5
    base: str = "minilm"
    threads: PositiveInt | None = None
    batch_size: PositiveInt = 16
    epochs: PositiveInt = 1
    iterations: PositiveInt | None = None
    max_steps: PositiveInt | None = 60
    share: float = Field(default=1.0, gt=0, le=1)
    sampling: Literal["oversampling", "undersampling", "unique"] = "oversampling"
    max_length: PositiveInt = 256

    @model_validator(mode="after")
    def _labels_are_known(self) -> SetFitRequest:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("labels: one of them stands twice")
        for name, rows in (("train", self.train), ("dev", self.dev), *self.tests.items()):
            if unknown := {row.label for row in rows} - set(self.labels):
                raise ValueError(f"{name}: label {min(unknown)!r} is not one of labels ({', '.join(self.labels)})")
        if len({row.label for row in self.train}) < 2:
            raise ValueError("train: all rows have one label; contrastive pairs need two")
        return self


def run_setfit(request: dict[str, Any]) -> dict[str, Any]:
    """Train and ask SetFit (Tunstall et al. 2022, arXiv:2209.11055) in a process of its own, without a network.

    Args:
        request: see `SetFitRequest`.

    Returns:
        A dict of

        - "predicted": {"dev": [label, …], TEST: …};
        - "nll": {"dev": mean −log-probability of the right labels, …};
        - "probabilities": {"dev": of the request's labels in their order [n][K], …};
        - "seconds": {"load", "train", "test"};
        - "pairs", "steps", "pairs_by_default";
        - "trained": numbers that are learned; "stored": numbers that must be kept; "artifact_bytes";
        - "truncated": training texts cut at `max_length`;
        - "peak_rss" and "peak_cuda": bytes, null without a GPU;
        - "device", "versions": {package: version}.

    Raises:
        ConfigError: the request cannot be used.
        MissingExtraError: setfit is not installed.
        SoftpromptError: what went wrong in the other process, in one line.
    """
    asked = parse(SetFitRequest, request, "setfit")
    if any(find_spec(name) is None for name in ("setfit", "sentence_transformers")):
        raise MissingExtraError("the row setfit needs: pip install 'softprompt[setfit]'")
    if asked.threads is None:
        import torch

        asked.threads = torch.get_num_threads()
    return ask(SIDE, asked.model_dump(mode="json"))


def ask(module: str, request: dict[str, Any]) -> dict[str, Any]:
    """Run a module that reads one JSON object and answers with one; its argument is the process that it is to end with.

    Raises:
        SoftpromptError: it says {"error": …}, or ends without an answer.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, str(os.getpid())],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, **OFFLINE},
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        last = said[-1] if said else "it said nothing"
        raise SoftpromptError(f"{module} ended with exit code {done.returncode} and no answer: {last}")
    if "error" in answer:
        raise SoftpromptError(f"{module}: {answer['error']}")
    return answer
