"""Artifacts of one classification that answer together, each on its own base, by their mean log-probabilities.

A geometric mean (a logarithmic opinion pool: Genest & Zidek 1986) stays one distribution over the labels, and a weight of 1
gives a member's own answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from .answers import Compiled, Evaluation, Outcome, answer, summarize
from .artifact import Artifact, Ensemble, Manifest, load, write_ensemble
from .artifact.card import ensemble_card
from .documents import DocumentCache
from .errors import ArtifactError, DataError
from .tasks import Task
from .tasks.classification import Classification
from .types import Example, Progress, ignore_progress

EQUAL_ROWS = 20.0
"""Rows that speak for equal weights, so that few rows do not drive a weight to 0.

Measured for probes on minilm and SmolLM2, on five data sets (128 rows, weights from five folds of them, four draws).
The mean log loss was .839 with 20, .847 with 0 and .841 with equal weights. The probes alone had .903 and .890.
"""


def combine(log_probs: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Σ weight · log p, normalised over the labels.

    Args:
        log_probs: of each member [n, K].
        weights: of each member.

    Returns:
        [n, K].
    """
    # a weight of 0 leaves a member out, even where it says −∞
    mixed = sum(weight * one for one, weight in zip(log_probs, weights, strict=True) if weight)
    mixed = np.asarray(mixed, dtype=float)
    return np.asarray(mixed - logsumexp(mixed, axis=-1, keepdims=True))


def fit_weights(
    log_probs: Sequence[np.ndarray],
    gold: Sequence[int] | np.ndarray,
    sample_weight: Sequence[float] | np.ndarray | None = None,
) -> list[float]:
    """The members' weights with the least log loss, shrunk towards equal weights as by `EQUAL_ROWS` more rows.

    Args:
        log_probs: of each member [n, K], for rows that it was not trained on.
        gold: [n] right labels.
        sample_weight: [n] how many rows each one counts for; None: each for one.

    Returns:
        weights ≥ 0 whose sum is 1.

    Raises:
        DataError: fewer than two members, no rows, or members that differ in shape.
    """
    members: np.ndarray = (
        np.array([np.asarray(one, dtype=float) for one in log_probs]) if _alike(log_probs) else np.empty(0)
    )
    right = np.asarray(gold)
    if len(members) < 2 or members.ndim != 3 or not len(right) or members.shape[1] != len(right):
        shapes = ", ".join(str(list(np.shape(one))) for one in log_probs)
        raise DataError(
            f"weights are fitted to log-probabilities [rows, labels] of two members or more and a right label for each "
            f"row; got {shapes or 'none'} and {len(right)} labels"
        )
    members = np.maximum(members, -1e4)
    count, rows = len(members), np.arange(len(right))
    times = np.ones(len(right)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    own = members[:, rows, right]  # [M, n]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = np.tensordot(weights, members, 1)
        total = logsumexp(mixed, axis=1)
        shares = np.exp(mixed - total[:, None])
        slope = np.einsum("mnk,nk->m", members, shares * times[:, None]) - own @ times
        apart = weights - 1 / count
        return float((total - weights @ own) @ times + EQUAL_ROWS * (apart @ apart)), slope + 2 * EQUAL_ROWS * apart

    found = minimize(
        loss,
        np.full(count, 1 / count),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": np.ones_like},
    )
    weights = np.clip(found.x, 0, 1)
    return [float(weight) for weight in weights / weights.sum()]


def _alike(log_probs: Sequence[np.ndarray]) -> bool:
    return len({np.shape(one) for one in log_probs}) == 1


def check_members(manifests: Mapping[str, Manifest]) -> None:
    """Refuse members that do not answer one task.

    Raises:
        ArtifactError: one is no classification, or reads other fields or has other labels than the first.
    """
    first: Classification | None = None
    for name, manifest in manifests.items():
        task = None if manifest.task is None else Task.of_artifact(manifest.task, manifest.format_version)
        if not isinstance(task, Classification):
            raise ArtifactError(f"member {name!r} is no classification, and only classifications can be averaged")
        first = first or task
        for what, own, its in (("labels", first.labels, task.labels), ("fields", first.fields, task.fields)):
            if set(own) != set(its):
                raise ArtifactError(
                    f"member {name!r} has the {what} {', '.join(sorted(its)[:8])}, the first member "
                    f"{', '.join(sorted(own)[:8])}; all members must have one task"
                )


def save_ensemble(
    folder: str | Path,
    members: Sequence[tuple[str | Path | Artifact, float]],
    metrics: Mapping[str, Mapping[str, Any]] | None = None,
    dev_rows: int | None = None,
) -> Ensemble:
    """Save artifacts of one classification, with weights, as one folder that a `Runtime` loads like an artifact.

    Args:
        members: artifacts (or folders of them, or of runs) and their weights, ≥ 0, whose sum is 1.
        metrics: of the ensemble, by split, as `Estimate.as_dict` gives them.
        dev_rows: on how many rows the weights were chosen, where they were.

    Raises:
        ArtifactError: members that do not answer one task, weights that do not fit, or a folder that holds something else.
    """
    named: dict[str, Artifact] = {}
    for source, _ in members:
        held = source if isinstance(source, Artifact) else load(Path(source))
        named[_free_name(held, named)] = held
    check_members({name: held.manifest for name, held in named.items()})
    weights = [weight for _, weight in members]
    card = ensemble_card({name: held.manifest for name, held in named.items()}, weights, metrics or {}, dev_rows)
    return write_ensemble(folder, named, weights, card, metrics, dev_rows)


def _free_name(held: Artifact, taken: Mapping[str, Artifact]) -> str:
    """A folder's name for a member: its method's, numbered where two have the same."""
    method = "".join(char if char.isascii() and char.isalnum() else "-" for char in str(held.manifest.method["name"]))
    name = method[:60].strip("-").lower() or "member"
    number = 1 + sum(one == name or one.startswith(f"{name}-") for one in taken)
    return name if number == 1 else f"{name}-{number}"


@dataclass(frozen=True)
class Together:
    """Compiled prompts that answer under one name: one, or the members of an ensemble with their weights."""

    prompts: tuple[Compiled, ...]
    weights: tuple[float, ...] = (1.0,)

    @property
    def task(self) -> Task:
        """The first one's."""
        return self.prompts[0].task

    def check_input(self, values: dict[str, Any]) -> str | None:
        """Why one of them cannot answer a row, or None."""
        return next((problem for one in self.prompts if (problem := one.task.check_input(values))), None)

    def encode(self, values: dict[str, Any], where: str) -> list[Example]:
        """A row as each one's example."""
        return [prompt.form.encode(values, where) for prompt in self.prompts]

    def outcome(self, outcomes: Sequence[Outcome]) -> Outcome:
        """What they say of one row together."""
        return outcomes[0] if len(outcomes) == 1 else combined(outcomes, self.weights)


def combined(outcomes: Sequence[Outcome], weights: Sequence[float]) -> Outcome:
    """What members say of one row together, with the first one's order of labels."""
    first = outcomes[0]
    labels = list(first.scores)
    scores = combine([np.array([one.scores[label] for label in labels]) for one in outcomes], weights)
    named = dict(zip(labels, scores.tolist(), strict=True))
    best = labels[int(scores.argmax())]
    return replace(first, predicted=best, scores=named, nll=None if first.gold is None else -named[first.gold])


def scores_of(found: Sequence[Evaluation]) -> tuple[list[np.ndarray], list[int]]:
    """Members' log-probabilities [n, K] of the same rows, and the right labels [n], as `fit_weights` takes them."""
    labels = list(found[0].outcomes[0].scores)
    scores = [np.array([[one.scores[label] for label in labels] for one in own.outcomes]) for own in found]
    return scores, [labels.index(one.gold) for one in found[0].outcomes]


def weighed(found: Sequence[Evaluation], weights: Sequence[float], metric: str) -> Evaluation:
    """The metric of members together, of their outcomes of the same rows."""
    rows = zip(*(own.outcomes for own in found), strict=True)
    return summarize(metric, [combined(outcomes, weights) for outcomes in rows])


def answer_together(
    rows: Sequence[Sequence[Example]],
    served: Sequence[Together],
    progress: Progress = ignore_progress,
    documents: DocumentCache | None = None,
) -> list[Outcome]:
    """Answer rows, each by those that answer under its name; rows of one base run in the same batches.

    Args:
        rows: each row as its examples, one for each prompt of `served`.
        documents: reads a text once for all that ask about it, and keeps it; None: each row runs whole.
    """
    flat = [example for examples in rows for example in examples]
    prompts = [prompt for one in served for prompt in one.prompts]
    if documents is not None:
        prompts = documents.behind_texts(flat, prompts)
    outcomes = iter(answer(flat, prompts, progress))
    return [one.outcome([next(outcomes) for _ in one.prompts]) for one in served]


def evaluate_together(served: Together, rows: Sequence[Any], progress: Progress = ignore_progress) -> Evaluation:
    """The first task's metric over labelled rows."""
    columns = [prompt.form.encode_rows(rows) for prompt in served.prompts]
    outcomes = answer_together(list(zip(*columns, strict=True)), [served] * len(rows), progress)
    return summarize(served.task.spec.metric, outcomes)
