"""Artifacts of one classification that answer together, each on its own base.

The default is the mean of log-probabilities. This geometric mean (a logarithmic opinion pool: Genest & Zidek 1986) stays one
distribution over the labels. A mean of probabilities (a linear pool) trusts a single sure member less. A vote counts labels
only. In all of them a weight of 1 gives a member's own answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from .answers import Compiled, Evaluation, Outcome, answer, summarize
from .artifact import Artifact, Ensemble, Manifest, load, write_ensemble
from .artifact.card import ensemble_card
from .artifact.ensemble_manifest import Combine
from .documents import DocumentCache
from .errors import ArtifactError, DataError
from .tasks import Task
from .tasks.classification import Classification
from .types import Example, Progress, ignore_progress

EQUAL_ROWS = 20.0
"""Rows that speak for equal weights, so that few rows do not drive a weight to 0.

Measured for probes on minilm and SmolLM2, on five data sets (128 rows, weights from five folds of them, four draws).
The mean log loss was .839 with 20, .847 with 0 and .841 with equal weights. The probes alone had .903 and .890. All of it
was measured with `log_probs`.
"""
_TINY = 1e-300  # a probability that has a logarithm
_TIE = 1e-9  # votes that differ by rounding alone are equal


def combine(log_probs: Sequence[np.ndarray], weights: Sequence[float], how: Combine = "log_probs") -> np.ndarray:
    """Log-probabilities of members together, normalised over the labels.

    Args:
        log_probs: of each member [n, K].
        weights: of each member.
        how: `log_probs`: Σ weight · log p; `probs`, and for the probabilities beside a `vote`: log Σ weight · p.

    Returns:
        [n, K].
    """
    # a weight of 0 leaves a member out, even where it says −∞
    used = [(np.asarray(one, dtype=float), weight) for one, weight in zip(log_probs, weights, strict=True) if weight]
    if how == "log_probs":
        mixed = np.asarray(sum(weight * one for one, weight in used))
    else:
        mixed = np.asarray(logsumexp([one + np.log(weight) for one, weight in used], axis=0))
    return np.asarray(mixed - logsumexp(mixed, axis=-1, keepdims=True))


def fit_weights(
    log_probs: Sequence[np.ndarray],
    gold: Sequence[int] | np.ndarray,
    sample_weight: Sequence[float] | np.ndarray | None = None,
    combine: Literal["log_probs", "probs"] = "log_probs",
) -> list[float]:
    """The members' weights with the least log loss, shrunk towards equal weights as by `EQUAL_ROWS` more rows.

    Args:
        log_probs: of each member [n, K], for rows that it was not trained on.
        gold: [n] right labels.
        sample_weight: [n] how many rows each one counts for; None: each for one.
        combine: how the members will answer together. A vote has no log loss of its own, so its weights are given.

    Returns:
        weights ≥ 0 whose sum is 1.

    Raises:
        DataError: fewer than two members, no rows, or members that differ in shape.
    """
    right = np.asarray(gold)
    members = _stacked(log_probs, len(right))
    count, rows = len(members), np.arange(len(right))
    times = np.ones(len(right)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    own = members[:, rows, right]  # [M, n]
    likely = np.exp(own)

    def of_log_probs(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = np.tensordot(weights, members, 1)
        total = logsumexp(mixed, axis=1)
        shares = np.exp(mixed - total[:, None])
        slope = np.einsum("mnk,nk->m", members, shares * times[:, None]) - own @ times
        return float((total - weights @ own) @ times), slope

    def of_probs(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = np.maximum(weights @ likely, _TINY)
        return float(-np.log(mixed) @ times), -(likely / mixed) @ times

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = (of_log_probs if combine == "log_probs" else of_probs)(weights)
        apart = weights - 1 / count
        return value + EQUAL_ROWS * float(apart @ apart), slope + 2 * EQUAL_ROWS * apart

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


def _stacked(log_probs: Sequence[np.ndarray], rows: int) -> np.ndarray:
    """Members' log-probabilities as one array [M, rows, K], none below −10,000.

    Raises:
        DataError: fewer than two members, no rows, or members that differ in shape.
    """
    shapes = [np.shape(one) for one in log_probs]
    if len(shapes) < 2 or len(set(shapes)) > 1 or len(shapes[0]) != 2 or not rows or shapes[0][0] != rows:
        told = ", ".join(str(list(shape)) for shape in shapes)
        raise DataError(
            f"weights are fitted to log-probabilities [rows, labels] of two members or more and a right label for each "
            f"row; got {told or 'none'} and {rows} labels"
        )
    return np.maximum(np.array([np.asarray(one, dtype=float) for one in log_probs]), -1e4)


def equal_weights(count: int) -> list[float]:
    """Weights of so many members that all count alike."""
    return [1 / count] * count


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
    combine: Combine = "log_probs",
) -> Ensemble:
    """Save artifacts of one classification, with weights, as one folder that a `Runtime` loads like an artifact.

    Args:
        members: artifacts (or folders of them, or of runs) and their weights, ≥ 0, whose sum is 1.
        metrics: of the ensemble, by split, as `Estimate.as_dict` gives them.
        dev_rows: on how many rows the weights were chosen, where they were.
        combine: how they answer together. `log_probs`: by the weighted mean of log-probabilities. `probs`: by that of
            probabilities. `vote`: the label that most members have as their best, by weight, and of equal ones the label
            with the highest mean probability; its probabilities are those of `probs`. Versions before 0.3 read `log_probs`
            only.

    Raises:
        ArtifactError: members that do not answer one task, weights or a `combine` that do not fit, or a folder that holds
            something else.
    """
    if combine not in (ways := list(get_args(Combine))):
        raise ArtifactError(f"combine is {combine!r:.60}; use {', '.join(ways[:-1])} or {ways[-1]}")
    named: dict[str, Artifact] = {}
    for source, _ in members:
        held = source if isinstance(source, Artifact) else load(Path(source))
        named[_free_name(held, named)] = held
    check_members({name: held.manifest for name, held in named.items()})
    weights = [weight for _, weight in members]
    manifests = {name: held.manifest for name, held in named.items()}
    card = ensemble_card(manifests, weights, metrics or {}, dev_rows, combine)
    return write_ensemble(folder, named, weights, card, metrics, dev_rows, combine)


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
    combine: Combine = "log_probs"

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
        return outcomes[0] if len(outcomes) == 1 else combined(outcomes, self.weights, self.combine)


def combined(outcomes: Sequence[Outcome], weights: Sequence[float], how: Combine = "log_probs") -> Outcome:
    """What members say of one row together, with the first one's order of labels."""
    first = outcomes[0]
    labels = list(first.scores)
    scores = combine([np.array([one.scores[label] for label in labels]) for one in outcomes], weights, how)
    named = dict(zip(labels, scores.tolist(), strict=True))
    votes = dict.fromkeys(labels, 0.0)
    for one, weight in zip(outcomes, weights, strict=True):
        votes[one.predicted] += weight
    most = max(votes.values()) - _TIE
    running = [label for label in labels if votes[label] >= most] if how == "vote" else labels
    best = max(running, key=named.__getitem__)
    nll = None if first.gold is None else -named[first.gold]
    return replace(first, predicted=best, scores=named, nll=nll, agreement=min(1.0, votes[best]))


def scores_of(found: Sequence[Evaluation]) -> tuple[list[np.ndarray], list[int]]:
    """Members' log-probabilities [n, K] of the same rows, and the right labels [n], as `fit_weights` takes them."""
    labels = list(found[0].outcomes[0].scores)
    scores = [np.array([[one.scores[label] for label in labels] for one in own.outcomes]) for own in found]
    return scores, [labels.index(one.gold) for one in found[0].outcomes]


def weighed(
    found: Sequence[Evaluation], weights: Sequence[float], metric: str, how: Combine = "log_probs"
) -> Evaluation:
    """The metric of members together, of their outcomes of the same rows."""
    rows = zip(*(own.outcomes for own in found), strict=True)
    return replace(summarize(metric, [combined(outcomes, weights, how) for outcomes in rows]), members=tuple(found))


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
    each = _answer_each(rows, served, progress, documents)
    return [one.outcome(outcomes) for one, outcomes in zip(served, each, strict=True)]


def _answer_each(
    rows: Sequence[Sequence[Example]],
    served: Sequence[Together],
    progress: Progress,
    documents: DocumentCache | None = None,
) -> list[list[Outcome]]:
    """What each prompt of `served` says of its row."""
    flat = [example for examples in rows for example in examples]
    prompts = [prompt for one in served for prompt in one.prompts]
    if documents is not None:
        prompts = documents.behind_texts(flat, prompts)
    outcomes = iter(answer(flat, prompts, progress))
    return [[next(outcomes) for _ in one.prompts] for one in served]


def evaluate_together(served: Together, rows: Sequence[Any], progress: Progress = ignore_progress) -> Evaluation:
    """The first task's metric over labelled rows, and of an ensemble that of each member."""
    columns = [prompt.form.encode_rows(rows) for prompt in served.prompts]
    each = _answer_each(list(zip(*columns, strict=True)), [served] * len(rows), progress)
    metric, several = served.task.spec.metric, len(served.prompts) > 1
    members = tuple(summarize(metric, list(own)) for own in zip(*each, strict=True)) if several else ()
    return replace(summarize(metric, [served.outcome(outcomes) for outcomes in each]), members=members)
