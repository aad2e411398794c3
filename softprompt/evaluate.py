"""From examples to outcomes: what was answered, how likely the right answer was, and the metric with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from .base import check_numbers
from .engine import Answer, BidirectionalEngine, Engine, Learned, best_span, whole_words
from .errors import DataError
from .methods import Method
from .metrics import Estimate, estimate
from .parallel import Processes
from .scoring import label_scores
from .tasks import BoundTask
from .tasks.scored import ScoredTask
from .types import Example, Progress, ignore_progress
from .writing import cut_short, likelihoods, silent, too_long, written

LIKELIHOOD = "log_likelihood"


@dataclass(frozen=True)
class Outcome:
    """What came of one row.

    Attributes:
        where: `file:line`.
        gold: the right label, or the texts that are right; None when the row has none.
        predicted: the best label, or what was written.
        scores: of labels, each one's log-score, normalised over labels; empty for what was written.
        nll: −log-score of the right label, or of the right answer's tokens; None where there is none.
        weight: what `nll` counts for in a mean: one label, or so many tokens.
        cut: what was written had not ended after `max_new_tokens`.
        tokens: of the right answer, where answers are written; 0 where there is none.
    """

    where: str
    gold: Any
    predicted: str
    scores: dict[str, float] = field(default_factory=dict)
    nll: float | None = None
    weight: int = 1
    cut: bool = False
    tokens: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As written to JSON."""
        found = {"where": self.where, "gold": self.gold, "predicted": self.predicted}
        return {**found, "scores": self.scores} if self.scores else found


@dataclass(frozen=True)
class Evaluation:
    """Outcomes of labelled rows, in their order.

    Attributes:
        estimate: the task's metric.
        nll: mean −log-score of the right labels, or of the right answers' tokens, of rows that have one (0 if none has); breaks
            ties between equal metrics.
    """

    estimate: Estimate
    nll: float
    outcomes: list[Outcome]

    def about_length(self, limit: int) -> list[str]:
        """What there is to say of answers that were written in at most `limit` tokens, in lines; nothing if all fitted.

        Also how many of them are empty.
        """
        longer = too_long([outcome.tokens for outcome in self.outcomes], limit)
        short = cut_short([outcome.cut for outcome in self.outcomes], limit)
        empty = silent([outcome.predicted for outcome in self.outcomes if not outcome.scores])
        return [line for line in (longer, short, empty) if line]


def outcomes(
    engine: Engine,
    method: Method,
    bound: BoundTask,
    examples: Sequence[Example],
    progress: Progress = ignore_progress,
    write: bool = True,
) -> list[Outcome]:
    """Answer every example, by the best of its candidates or by writing.

    Args:
        write: False leaves out what takes long: answers that are written are not, only their right ones' likelihood is found.
    """
    with torch.no_grad():
        learned = method.learned()
    if method.points:
        return pointed(engine, bound, examples, learned, progress)
    if bound.task.answering == "scored":
        scores = label_scores(engine, method, bound, examples, learned, progress)
        return [outcome(bound, example, row) for example, row in zip(examples, scores, strict=True)]
    nothing = [Answer((), True)] * len(examples)
    answers = written(engine, bound, examples, learned, progress) if write else nothing
    known = [example for example in examples if example.gold is not None]
    losses = iter(likelihoods(engine, known, learned, progress))
    return [
        free_outcome(bound, example, answer, None if example.gold is None else next(losses))
        for example, answer in zip(examples, answers, strict=True)
    ]


def evaluate(
    engine: Engine,
    method: Method,
    bound: BoundTask,
    examples: Sequence[Example],
    progress: Progress = ignore_progress,
    parallel: Processes | None = None,
    write: bool = True,
) -> Evaluation:
    """The task's metric over labelled examples.

    Args:
        parallel: each of these processes scores its shard; all of them get the whole.
        write: see `outcomes`; without it the metric of written answers is the mean log-likelihood of the right ones' tokens.

    Raises:
        DataError: no rows, or a row without a label.
    """
    parallel = parallel or Processes()
    found = parallel.gather(outcomes(engine, method, bound, parallel.shard(examples), progress, write))
    scored = write or method.points or bound.task.answering == "scored"
    return summarize(bound.task.spec.metric if scored else LIKELIHOOD, found)


def summarize(metric: str, found: list[Outcome]) -> Evaluation:
    """The metric over outcomes.

    Raises:
        DataError: no rows, or a row without a label.
    """
    if not found:
        raise DataError("there are no rows to evaluate")
    golds = [outcome.gold for outcome in found if outcome.gold is not None]
    if len(golds) < len(found):
        first = next(outcome.where for outcome in found if outcome.gold is None)
        raise DataError(f"{first}: the row has no label to evaluate against ({len(found) - len(golds)} such rows)")
    known = [(outcome.nll, outcome.weight) for outcome in found if outcome.nll is not None]
    nlls, weights = [loss for loss, _ in known], [weight for _, weight in known]
    nll = sum(nlls) / sum(weights) if known else 0.0
    if metric == LIKELIHOOD:
        return Evaluation(_likelihood(nlls, weights), nll, found)
    return Evaluation(estimate(metric, golds, [outcome.predicted for outcome in found]), nll, found)


def _likelihood(nlls: Sequence[float], weights: Sequence[int]) -> Estimate:
    """Mean log-likelihood of a token; its interval from the spread of rows (linearised ratio, Cochran 1977, §2.11)."""
    tokens, losses = np.array(weights, dtype=float), np.array(nlls)
    mean = losses.sum() / tokens.sum()
    spread = (losses - mean * tokens).std(ddof=1) / tokens.mean() if len(nlls) > 1 else 0.0
    half = 1.96 * spread / math.sqrt(len(nlls))
    return Estimate(LIKELIHOOD, float(-mean), (float(-mean - half), float(-mean + half)), len(nlls))


def outcome(bound: BoundTask, example: Example, scores: Tensor) -> Outcome:
    """Name the labels of one example's scores [K]."""
    task = cast(ScoredTask, bound.task)
    check_numbers(scores, example.where)
    names = {task.label_name(example.values, k): float(value) for k, value in enumerate(scores)}
    best, gold = task.label_name(example.values, int(scores.argmax())), task.gold(example.values)
    return Outcome(example.where, gold, best, names, None if gold is None else -names[gold])


@torch.no_grad()
def pointed(
    engine: Engine,
    bound: BoundTask,
    examples: Sequence[Example],
    learned: Learned,
    progress: Progress = ignore_progress,
) -> list[Outcome]:
    """The stretch of each row's context that is pointed at, as it stands there."""
    assert isinstance(engine, BidirectionalEngine)
    longest = bound.task.longest_answer
    found: dict[int, Outcome] = {}
    for part in engine.buckets(examples):
        rows = [examples[index] for index in part]
        for index, example, own in zip(part, rows, engine.pointers(rows, learned), strict=True):
            check_numbers(own, example.where)
            first, last = best_span(own, longest, example.windows)
            text = whole_words(str(example.values["context"]), example.points[first][0], example.points[last][1])
            nll = None if example.span is None else -float(own[example.span[0], 0] + own[example.span[1], 1]) / 2
            found[index] = Outcome(example.where, bound.task.gold(example.values), text.strip(), {}, nll)
        progress("evaluating", len(found), len(examples))
    return [found[index] for index in range(len(examples))]


def free_outcome(bound: BoundTask, example: Example, answer: Answer, nll: float | None = None) -> Outcome:
    """What was written behind one example."""
    weight = 1 if nll is None else len(example.answer)
    gold = bound.task.gold(example.values)
    tokens = 0 if example.gold is None else len(bound.spoken(example.answer))
    return Outcome(example.where, gold, bound.read(answer.ids, answer.ended), {}, nll, weight, not answer.ended, tokens)
