"""Labels that are decided one by one: a head's logit of each says how likely the row has it, whatever the others say."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base import Base, check_numbers
from ..engine import Engine, Learned, run
from ..errors import ConfigError
from ..metrics import metric_of
from ..tasks import Task
from ..tasks.multilabel import MultiLabel
from ..types import Example, Progress, ignore_progress
from .form import AnswerForm, Compiled, Prompt, frozen_learned
from .outcome import Evaluation, Outcome, summarize
from .thresholds import best_thresholds


class Decided(AnswerForm[MultiLabel]):
    """The labels whose probability reaches their thresholds, from a head that reads one state a row."""

    mixes = True
    needs_head = True
    settles_on_dev = True

    @classmethod
    def head_size(cls, task: Task) -> int:
        """One logit a label."""
        return len(task.spec.labels)  # type: ignore[attr-defined]  # the task names this form

    @classmethod
    def check(cls, base: Base, task: Task) -> None:
        """The labels must be known."""
        if not cls.head_size(task):
            raise ConfigError(
                f"task {task.name!r}: labels is missing, the list of all labels, e.g. [price, delivery, quality]"
            )

    @property
    def unstreamable(self) -> str:
        """Labels are decided all at once."""
        return f"decides its labels (type {self.task.spec.type!r}); ask predict"

    def encode(self, values: dict[str, Any], where: str = "row") -> Example:
        """A row with 1 for each label that it has, else 0."""
        text, holes, truncated = self.bound.fitted(values, where, 0, "its labels")
        labels = self.task.gold(values)
        target = None if labels is None else tuple(int(label in labels) for label in self.task.spec.labels)
        gold = None if target is None else 0
        return Example(text, ((0,),), gold, where, values, truncated, target=target, holes=holes)

    def logits(self, engine: Engine, rows: Sequence[Example], learned: Learned) -> tuple[Tensor, Tensor]:
        """Logits of the labels [B, K], and 1 of each that a row has, else 0 [B, K].

        Without a head (`probe` learns its own in closed form) what it would read, [B, H].
        """
        states = engine.pooled(rows, learned).float()
        logits = states if learned.head is None else learned.head(states)
        return logits, self._targets(rows).to(logits.device)

    def _targets(self, rows: Sequence[Example]) -> Tensor:
        """Of a row without labels (made up by doctor) none."""
        none = (0,) * len(self.task.spec.labels)
        return torch.tensor([none if row.target is None else row.target for row in rows], dtype=torch.float)

    def loss(self, engine: Engine, rows: Sequence[Example], learned: Learned) -> tuple[Tensor, int]:
        """Σ over rows and labels of the binary cross-entropy, and how many of these there are."""
        logits, targets = self.logits(engine, rows, learned)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)
        weights = losses.new_tensor([row.weight for row in rows])
        return (losses * weights).sum(), targets.numel()

    def loss_weight(self, example: Example) -> int:
        """Each label is one decision."""
        return len(self.task.spec.labels)

    @torch.no_grad()
    def predict(
        self, prompt: Prompt, rows: Sequence[Example], progress: Progress = ignore_progress, quick: bool = False
    ) -> list[Outcome]:
        """The labels of every row; each row runs once."""
        learned, outcomes = frozen_learned(prompt.method), dict[int, Outcome]()
        for indices, batch in prompt.engine.contexts(rows, learned, progress, continued=False):
            logits = prompt.method.classify(batch).cpu()
            outcomes.update(
                (index, self._outcome(rows[index], own)) for index, own in zip(indices, logits, strict=True)
            )
        return [outcomes[index] for index in range(len(rows))]

    def _outcome(self, example: Example, logits: Tensor) -> Outcome:
        """What a row's logits [K] say."""
        check_numbers(logits, example.where)
        scores = dict(zip(self.task.spec.labels, F.logsigmoid(logits.double()).tolist(), strict=True))
        nll = None
        if example.target is not None:
            right = torch.tensor(example.target, dtype=torch.double)
            nll = float(F.binary_cross_entropy_with_logits(logits.double(), right, reduction="sum"))
        gold = self.task.gold(example.values)
        return self._decided(Outcome(example.where, gold, [], scores, nll, self.loss_weight(example)))

    def _decided(self, outcome: Outcome) -> Outcome:
        """An outcome's labels by its scores and the thresholds."""
        likely = {label: float(torch.tensor(score).exp()) for label, score in outcome.scores.items()}
        pairs = zip(likely.items(), self.task.thresholds, strict=True)
        labels = [label for (label, probability), threshold in pairs if probability >= threshold]
        return replace(outcome, predicted=labels, shown={"labels": labels, "probabilities": likely})

    def settle_on_dev(self, evaluation: Evaluation) -> Evaluation:
        """Choose each label's threshold, unless the task gives it; `subset_accuracy` keeps one half.

        The likeliest set of labels that are decided one by one has those that are more likely than not.
        """
        metric = self.task.spec.metric
        if self.task.spec.thresholds is not None:
            return evaluation
        outcomes = evaluation.outcomes
        chosen = self.task.thresholds
        if metric_of(metric).name != "subset_accuracy":
            labels = self.task.spec.labels
            scores = torch.tensor([[one.scores[label] for label in labels] for one in outcomes], dtype=torch.double)
            right = torch.tensor([[label in one.gold for label in labels] for one in outcomes])
            chosen = best_thresholds(scores.exp().numpy(), right.numpy())
        self.task = self.bound.task = self.task.with_thresholds(chosen)
        return summarize(metric, [self._decided(one) for one in outcomes])

    def together(self, prompt: Compiled) -> Hashable:
        """Rows that run through the same weights."""
        return ("decided", id(prompt.live.model)) if prompt.base.mixes_prompts else id(prompt)

    @torch.no_grad()
    def serve(self, rows: Sequence[Example], prompts: Sequence[Compiled]) -> list[Outcome]:
        """The labels of each row of one batch, each by its own prompt's head and thresholds."""
        first = prompts[0]
        if not first.base.mixes_prompts:
            return self.predict(first, rows)
        batch = run(
            first.base, [own.row(row) for row, own in zip(rows, prompts, strict=True)], first.kept, live=first.live
        )
        by_prompt: dict[int, list[int]] = {}
        for index, prompt in enumerate(prompts):
            by_prompt.setdefault(id(prompt), []).append(index)
        outcomes: dict[int, Outcome] = {}
        for indices in by_prompt.values():
            prompt = prompts[indices[0]]
            logits = prompt.method.classify(batch.rows(indices)).cpu()
            for index, own in zip(indices, logits, strict=True):
                form: Decided = prompt.form  # type: ignore[assignment]  # they give the same `together`
                outcomes[index] = form._outcome(rows[index], own)
        return [outcomes[index] for index in range(len(rows))]
