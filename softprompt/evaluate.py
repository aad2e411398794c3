"""From examples to outcomes: label scores, calibration, predictions, and the metric with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .engine import Engine, Learned
from .errors import DataError
from .methods import Method
from .metrics import Estimate, estimate
from .parallel import Processes
from .tasks import BoundTask
from .types import Example, Ids, Progress, ignore_progress


@dataclass(frozen=True)
class Outcome:
    """What came of one row.

    Attributes:
        where: `file:line`.
        gold: the right label; None when the row has none.
        predicted: the label with the highest score.
        scores: log-score of every label, normalised over labels.
    """

    where: str
    gold: str | None
    predicted: str
    scores: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """As written to JSON."""
        return {"where": self.where, "gold": self.gold, "predicted": self.predicted, "scores": self.scores}


@dataclass(frozen=True)
class Evaluation:
    """Outcomes of labelled rows, in their order.

    Attributes:
        estimate: the task's metric.
        nll: mean −log-score of the right labels; breaks ties between equal metrics.
    """

    estimate: Estimate
    nll: float
    outcomes: list[Outcome]


def outcomes(
    engine: Engine,
    method: Method,
    bound: BoundTask,
    examples: Sequence[Example],
    progress: Progress = ignore_progress,
) -> list[Outcome]:
    """Score every example and name the best label."""
    with torch.no_grad():
        learned = method.learned()
        scores = label_scores(engine, method, bound, examples, learned, progress)
        shift = calibration(engine, method, bound, learned)
    return [outcome(bound, example, row, shift) for example, row in zip(examples, scores, strict=True)]


def evaluate(
    engine: Engine,
    method: Method,
    bound: BoundTask,
    examples: Sequence[Example],
    progress: Progress = ignore_progress,
    parallel: Processes | None = None,
) -> Evaluation:
    """The task's metric over labelled examples.

    Args:
        parallel: each of these processes scores its share; all of them get the whole.

    Raises:
        DataError: no rows, or a row without a label.
    """
    parallel = parallel or Processes()
    found = parallel.gather(outcomes(engine, method, bound, parallel.share(examples), progress))
    return summarize(bound.task.spec.metric, found)


def summarize(metric: str, found: list[Outcome]) -> Evaluation:
    """The metric over outcomes.

    Raises:
        DataError: no rows, or a row without a label.
    """
    if not found:
        raise DataError("there are no rows to evaluate")
    pairs = [(outcome.gold, outcome.predicted) for outcome in found if outcome.gold is not None]
    if len(pairs) < len(found):
        first = next(outcome.where for outcome in found if outcome.gold is None)
        raise DataError(f"{first}: the row has no label to evaluate against ({len(found) - len(pairs)} such rows)")
    nll = -sum(outcome.scores[str(outcome.gold)] for outcome in found) / len(found)
    return Evaluation(estimate(metric, [gold for gold, _ in pairs], [guess for _, guess in pairs]), nll, found)


def outcome(bound: BoundTask, example: Example, scores: Tensor, shift: Tensor | None) -> Outcome:
    """Name the labels of one example's scores [K]."""
    task = bound.task
    if shift is not None:
        scores = (scores - shift).log_softmax(0)
    names = {task.label_name(example.values, k): float(value) for k, value in enumerate(scores)}
    best = task.label_name(example.values, int(scores.argmax()))
    return Outcome(example.where, task.gold_label(example.values), best, names)


def label_scores(
    engine: Engine,
    method: Method,
    bound: BoundTask,
    examples: Sequence[Example],
    learned: Learned,
    progress: Progress = ignore_progress,
) -> list[Tensor]:
    """Normalised log-scores of the labels, per example [K], on the CPU."""
    found: dict[int, Tensor] = {}
    for part, batch in engine.contexts(examples, learned, progress, continued=method.sums_over_tokens):
        options = [examples[index].candidates for index in part]
        with torch.no_grad():
            rows = method.score(batch, options)
        for index, row, candidates in zip(part, rows, options, strict=True):
            found[index] = normalized(method, bound, row, candidates)
    return [found[index] for index in range(len(examples))]


def normalized(method: Method, bound: BoundTask, scores: Tensor, candidates: Sequence[Ids]) -> Tensor:
    """A row's candidate scores [C] as normalised log-scores of the labels [K], on the CPU."""
    lengths = [len(ids) if method.sums_over_tokens else 1 for ids in candidates]
    return bound.task.label_scores(scores.cpu(), lengths)


def calibration(engine: Engine, method: Method, bound: BoundTask, learned: Learned) -> Tensor | None:
    """What the prompt answers when there is nothing to judge: mean label scores [K] of content-free inputs.

    Contextual calibration (Zhao et al. 2021, arXiv:2102.09690): dividing by these probabilities takes the prompt's own
    leaning out. None when the task does not ask for it.
    """
    scoring = bound.task.spec.scoring
    if scoring.calibration == "none":
        return None
    fields = bound.task.spec.template.fields
    blanks = [bound.example(dict.fromkeys(fields, blank), f"content-free {blank!r}") for blank in scoring.content_free]
    rows = label_scores(engine, method, bound, blanks, learned)
    return torch.stack(rows).exp().mean(0).log()
