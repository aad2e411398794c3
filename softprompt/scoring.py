"""Answers that are chosen: candidates' scores, what they are taken relative to, and a loss that compares them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from .engine import Engine, Learned
from .methods import Method
from .tasks import BoundTask
from .tasks.classification import Classification
from .tasks.scored import ScoredTask
from .types import Example, Ids, Progress, ignore_progress

Prior = Tensor | dict[Ids, float] | None
"""What the prompt says without a row: of labels, log-scores [K]; of candidates, a log-score for each."""


def label_scores(
    engine: Engine,
    method: Method,
    bound: BoundTask,
    examples: Sequence[Example],
    learned: Learned,
    progress: Progress = ignore_progress,
) -> list[Tensor]:
    """Normalised log-scores of the labels, per example [K], on the CPU, relative to the task's prior."""
    before = prior(engine, method, bound, learned, examples)
    found = _scores(engine, method, examples, learned, progress)
    return [relative(method, bound, row, one.candidates, before) for row, one in zip(found, examples, strict=True)]


def _scores(
    engine: Engine, method: Method, examples: Sequence[Example], learned: Learned, progress: Progress = ignore_progress
) -> list[Tensor]:
    """Candidates' scores, per example [C], on the CPU."""
    found: dict[int, Tensor] = {}
    for part, batch in engine.contexts(examples, learned, progress, continued=method.sums_over_tokens):
        options = [examples[index].candidates for index in part]
        with torch.no_grad():
            rows = method.score(batch, options)
        found.update((index, row.cpu()) for index, row in zip(part, rows, strict=True))
    return [found[index] for index in range(len(examples))]


def relative(method: Method, bound: BoundTask, scores: Tensor, candidates: Sequence[Ids], before: Prior) -> Tensor:
    """A row's candidate scores [C] as normalised log-scores of the labels [K], relative to the prior, on the CPU."""
    task = cast(ScoredTask, bound.task)
    lengths = [len(ids) if method.sums_over_tokens else 1 for ids in candidates]
    scores = scores.cpu()
    if isinstance(before, dict):
        scores = scores - torch.tensor([before[ids] for ids in candidates])
    found = task.label_scores(scores, lengths)
    return (found - before).log_softmax(0) if isinstance(before, Tensor) else found


def prior(
    engine: Engine, method: Method, bound: BoundTask, learned: Learned, examples: Sequence[Example] = ()
) -> Prior:
    """What the prompt answers when there is nothing to judge; None when the task does not ask for it.

    `contextual`: mean label scores [K] of content-free inputs; dividing by these probabilities takes the prompt's own
    leaning out (Zhao et al. 2021, arXiv:2102.09690). `pmi`: every candidate's log-likelihood behind the template without a
    row, so that what is likely anyway counts less (Holtzman et al. 2021, arXiv:2104.08315, eq. 4).

    Args:
        examples: whose candidates are asked for, where each row has its own.
    """
    task = cast(ScoredTask, bound.task)
    if task.prior == "contextual":
        assert isinstance(task, Classification), "fixed labels"
        fields = task.spec.template.fields
        blanks = [bound.example(dict.fromkeys(fields, blank), f"content-free {blank!r}") for blank in task.blanks]
        rows = _scores(engine, method, blanks, learned)
        labels = [relative(method, bound, row, one.candidates, None) for row, one in zip(rows, blanks, strict=True)]
        return torch.stack(labels).exp().mean(0).log()
    if task.prior == "pmi" and examples:
        everything = tuple(sorted({ids for example in examples for ids in example.candidates}))
        holes = (0,) * (sum(slot.name == "text" for slot in bound.slots) - 1)  # where slots stand in the text
        blank = Example((), everything, None, "the template without a row", {}, holes=holes)
        (scores,) = _scores(engine, method, [blank], learned)
        return dict(zip(everything, scores.tolist(), strict=True))
    return None


def options_loss(engine: Engine, bound: BoundTask, rows: Sequence[Example], learned: Learned) -> tuple[Tensor, int]:
    """Σ over rows of the cross-entropy of the right option among the row's options, by the scores they are compared by.

    A row's options run side by side behind its context; options of one token need one run.

    Returns:
        the sum, and how many rows it is of.
    """
    task = cast(ScoredTask, bound.task)
    if all(len(ids) == 1 for example in rows for ids in example.candidates):
        logits, _ = engine.answers(rows, learned)
        every = logits.log_softmax(-1)
        scores = [every[k, [ids[0] for ids in example.candidates]] for k, example in enumerate(rows)]
    else:
        each = [replace(example, gold=place) for example in rows for place in range(len(example.candidates))]
        logits, targets = engine.answers(each, learned)
        values = -F.cross_entropy(logits, targets, reduction="none")
        sums = [part.sum() for part in values.split([len(example.answer) for example in each])]
        scores = list(torch.stack(sums).split([len(example.candidates) for example in rows]))
    total = logits.new_zeros(())
    for example, own in zip(rows, scores, strict=True):
        assert example.gold is not None
        total = total - task.label_scores(own, [len(ids) for ids in example.candidates])[example.gold]
    return total, len(rows)


def objective_of(engine: Engine, bound: BoundTask) -> Callable[[Sequence[Example], Learned], tuple[Tensor, int]]:
    """What training minimises: cross-entropy of the right answers' tokens, or of the right option where options compete."""
    if isinstance(bound.task, ScoredTask) and bound.task.contrastive:  # a head is refused for these
        return partial(options_loss, engine, bound)
    return engine.loss
