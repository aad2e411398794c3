"""Answers that are chosen: every possible answer of a row gets a score, the best one is taken.

Scores are the base's likelihoods of the answers' words behind the row, or the log-probabilities of a head. They may be taken
relative to what the prompt says without a row.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base import check_numbers
from ..engine import BatchOutput, Engine, Learned, WordTree, distinct_beginnings, run, summed_loss
from ..methods import Method
from ..tasks import BoundTask, Task
from ..tasks.scored import ScoredTask
from ..types import Example, Ids, Progress, ignore_progress
from .ends import ended, filled
from .form import AnswerForm, Compiled, Prompt, frozen_learned
from .outcome import Outcome

Prior = Tensor | dict[Ids, float] | None
"""What the prompt says without a row: of labels, log-scores [K]; of candidates, a log-score for each."""


class Chosen(AnswerForm[ScoredTask]):
    """The best of a row's candidates: the words of fixed labels, or options that each row brings."""

    mixes = True

    def __init__(self, bound: BoundTask, headed: bool = False) -> None:
        super().__init__(bound, headed)
        self._words = self.task.words
        self._candidates: tuple[Ids, ...] | None = None
        self._over_labels = self.task.over_labels and not headed

    @classmethod
    def head_size(cls, task: Task) -> int:
        """One logit a label word."""
        return len(task.words)

    def encode(self, values: dict[str, Any], where: str = "row") -> Example:
        """A row with its candidates; a text is cut alike whether its answer is known yet or not."""
        words, gold = self.task.candidates(values)
        candidates = self.candidates(words)
        self.bound.tied += words is not self._words and len({*candidates}) < len({*words})
        longest = max(map(len, candidates))
        text, holes, truncated = self.bound.fitted(values, where, longest, f"answers of {longest} tokens")
        return Example(text, candidates, gold, where, values, truncated, holes=holes)

    def candidates(self, words: Sequence[str]) -> tuple[Ids, ...]:
        """Ids of a row's possible answers, each distinguishable from the others (see `ends.py`)."""
        if words is not self._words:
            return self._distinct([self.bound.answer(word) for word in words])
        if self._candidates is None:
            self._candidates = self._distinct([self.bound.answer(word) for word in words])
        return self._candidates

    @cached_property
    def tree(self) -> WordTree | None:
        """The labels' words as a tree, where they compete with each other alone and are written one token after the other."""
        if not self._over_labels or not self._in_order:
            return None
        words = distinct_beginnings(self.candidates(self._words))
        return WordTree.of(words) if len(set(words)) > 1 else None  # of equal words the doctor tells

    @property
    def _competing(self) -> bool:
        """Whether labels' words compete in training; words that are written and have the same tokens cannot."""
        return self._over_labels and (self.tree is not None or not self._in_order)

    @property
    def _in_order(self) -> bool:
        return not self.bound.prompter.closing or self.bound.writes is not None

    def _distinct(self, candidates: Sequence[Ids]) -> tuple[Ids, ...]:
        prompter = self.bound.prompter
        if self.task.rules < 2:
            return tuple(candidates)
        if self._in_order:
            return ended(candidates, prompter.word_end)
        if self.bound.learns and not self.task.contrastive:
            return filled(candidates, prompter.word_end)
        return tuple(candidates)

    def compared(self, example: Example) -> tuple[Ids, ...]:
        """What of a row's candidates is run to compare them."""
        return example.candidates if self.tree is None else self.tree.answers

    def spoken(self, ids: Ids) -> Ids:
        """An answer's ids without the tokens that end it or fill it up."""
        while len(ids) > 1 and self.task.rules > 1 and ids[-1:] == self.bound.prompter.word_end:
            ids = ids[:-1]
        return ids

    def logits(self, engine: Engine, rows: Sequence[Example], learned: Learned) -> tuple[Tensor, Tensor]:
        """Logits [A, V] at the right answers' positions and their tokens [A]; of a head [B, K] and the right ones [B]."""
        if learned.head is None:
            return engine.answers(rows, learned)
        logits = learned.head(engine.pooled(rows, learned).float())
        return logits, torch.tensor([example.gold for example in rows], device=logits.device)

    def loss(self, engine: Engine, rows: Sequence[Example], learned: Learned) -> tuple[Tensor, int]:
        """Cross-entropy of the right answers' tokens; of the right option, where options compete."""
        if self.task.contrastive:  # a head is refused for these
            return self._options_loss(engine, rows, learned)
        if self._competing:
            return self._labels_loss(engine, rows, learned)
        if learned.head is None:
            return engine.loss(rows, learned)
        logits, targets = self.logits(engine, rows, learned)
        return summed_loss(logits, targets, rows, [1] * len(rows)), len(targets)

    def _labels_loss(self, engine: Engine, rows: Sequence[Example], learned: Learned) -> tuple[Tensor, int]:
        """Σ over rows of -log p(right word), among the labels' words; each row runs once.

        At masks, which stand in every row side by side, a word's score is the sum of its tokens' logits.
        """
        if self.tree is not None:
            rows = self.tree.shortened(rows)
            return self.tree.loss(engine.answers(rows, learned, self.tree.tokens)[0], rows), len(rows)
        logits, _ = engine.answers(rows, learned)
        words = torch.tensor(self.candidates(self._words), device=logits.device)  # [C, k]
        at_masks = logits.view(len(rows), words.shape[1], -1)
        scores = torch.stack([at_masks[:, k, words[:, k]] for k in range(words.shape[1])]).sum(0)
        gold = torch.tensor([example.gold for example in rows], device=logits.device)
        return summed_loss(scores, gold, rows, [1] * len(rows)), len(rows)

    def _options_loss(self, engine: Engine, rows: Sequence[Example], learned: Learned) -> tuple[Tensor, int]:
        """Σ over rows of the cross-entropy of the right option among the row's options, by the scores they are compared by.

        A row's options run side by side behind its context; options of one token need one run.
        """
        if all(len(ids) == 1 for example in rows for ids in example.candidates):
            logits, _ = engine.answers(rows, learned)
            every = logits.log_softmax(-1)
            scores = [every[k, [ids[0] for ids in example.candidates]] for k, example in enumerate(rows)]
        else:
            each = [replace(example, gold=index) for example in rows for index in range(len(example.candidates))]
            logits, targets = engine.answers(each, learned)
            values = -F.cross_entropy(logits, targets, reduction="none")
            sums = [own.sum() for own in values.split([len(example.answer) for example in each])]
            scores = list(torch.stack(sums).split([len(example.candidates) for example in rows]))
        total = logits.new_zeros(())
        for example, own in zip(rows, scores, strict=True):
            assert example.gold is not None
            labels = self.task.label_scores(own, [len(ids) for ids in example.candidates])
            total = total - example.weight * labels[example.gold]
        return total, len(rows)

    def loss_weight(self, example: Example) -> int:
        """The tokens of its answer; one, where it is one decision."""
        one = self.headed or self.task.contrastive or self._competing
        return 1 if one else len(example.answer)

    def predict(
        self, prompt: Prompt, rows: Sequence[Example], progress: Progress = ignore_progress, quick: bool = False
    ) -> list[Outcome]:
        """The best label of every row; each row runs once."""
        scores = self.label_scores(prompt, rows, frozen_learned(prompt.method), progress)
        return [self.outcome(example, own) for example, own in zip(rows, scores, strict=True)]

    def label_scores(
        self, prompt: Prompt, rows: Sequence[Example], learned: Learned, progress: Progress = ignore_progress
    ) -> list[Tensor]:
        """Normalised log-scores of the labels, per row [K], on the CPU, relative to the task's prior."""
        before = self.prior(prompt, learned, rows)
        scores = _scores(prompt, rows, learned, progress)
        return [
            self.relative(prompt.method, own, one.candidates, before) for own, one in zip(scores, rows, strict=True)
        ]

    def relative(self, method: Method, scores: Tensor, candidates: Sequence[Ids], before: Prior) -> Tensor:
        """A row's candidate scores [C] as normalised log-scores of the labels [K], relative to the prior, on the CPU."""
        # where labels compete, learned scores are of whole words: of a tree, or at as many masks each
        whole = not method.sums_over_tokens or self.tree is not None or (self._over_labels and self.bound.learns)
        lengths = [1 if whole else len(ids) for ids in candidates]
        scores = scores.cpu()
        if isinstance(before, dict):
            scores = scores - torch.tensor([before[ids] for ids in candidates])
        labels = self.task.label_scores(scores, lengths)
        return (labels - before).log_softmax(0) if isinstance(before, Tensor) else labels

    def prior(self, prompt: Prompt, learned: Learned, rows: Sequence[Example] = ()) -> Prior:
        """What the prompt answers when there is nothing to judge; None when the task does not ask for it.

        `contextual`: mean label scores [K] of content-free inputs; dividing by these probabilities takes the prompt's own
        leaning out (Zhao et al. 2021, arXiv:2102.09690). `pmi`: every candidate's log-likelihood behind the template without
        a row, so that what is likely anyway counts less (Holtzman et al. 2021, arXiv:2104.08315, eq. 4).

        Args:
            rows: whose candidates are asked for, where each row has its own.
        """
        if self.task.prior == "contextual":
            fields = self.task.spec.template.fields
            blanks = [
                self.encode(dict.fromkeys(fields, blank), f"content-free {blank!r}") for blank in self.task.blanks
            ]
            scores = _scores(prompt, blanks, learned)
            labels = [
                self.relative(prompt.method, own, one.candidates, None) for own, one in zip(scores, blanks, strict=True)
            ]
            return torch.stack(labels).exp().mean(0).log()
        if self.task.prior == "pmi" and rows:
            everything = tuple(sorted({ids for example in rows for ids in example.candidates}))
            # where slots stand in the text
            holes = (0,) * (sum(slot.name == "text" for slot in self.bound.slots) - 1)
            blank = Example((), everything, None, "the template without a row", {}, holes=holes)
            (values,) = _scores(prompt, [blank], learned)
            return dict(zip(everything, values.tolist(), strict=True))
        return None

    def outcome(self, example: Example, scores: Tensor) -> Outcome:
        """Name the labels of one row's scores [K]."""
        task, values = self.task, example.values
        check_numbers(scores, example.where)
        names = {task.label_name(values, k): float(value) for k, value in enumerate(scores)}
        best, gold = task.label_name(values, int(scores.argmax())), task.gold(values)
        return Outcome(example.where, gold, best, names, None if gold is None else -names[gold])

    def once(self, prompt: Prompt, learned: Learned) -> Prior:
        """The prior, where it is the same for all rows."""
        return self.prior(prompt, learned)

    def together(self, prompt: Compiled) -> Hashable:
        """Rows that run through the same weights."""
        return ("chosen", id(prompt.live.model)) if prompt.base.mixes_prompts else id(prompt)

    @torch.no_grad()
    def serve(self, rows: Sequence[Example], prompts: Sequence[Compiled]) -> list[Outcome]:
        """The best candidate of each row of one batch."""
        first = prompts[0]
        if not first.base.mixes_prompts:
            return self.predict(first, rows)
        asked = (prompt.form.compared(example) for example, prompt in zip(rows, prompts, strict=True))
        record = any(len(ids) > 1 for answers in asked for ids in answers)
        engine_rows = [prompt.row(example) for example, prompt in zip(rows, prompts, strict=True)]
        batch = run(first.base, engine_rows, first.kept, record, first.live)
        by_prompt: dict[int, list[int]] = {}
        for index, prompt in enumerate(prompts):
            by_prompt.setdefault(id(prompt), []).append(index)
        outcomes: dict[int, Outcome] = {}
        for indices in by_prompt.values():
            prompt, some = prompts[indices[0]], [rows[index] for index in indices]
            form: Chosen = prompt.form  # type: ignore[assignment]  # they give the same `together`
            before = prompt.once
            if before is None:
                before = form.prior(prompt, prompt.method.learned(), some)
            scores = scored(prompt, batch.rows(indices), some)
            for index, example, values in zip(indices, some, scores, strict=True):
                labels = form.relative(prompt.method, values, example.candidates, before)
                outcomes[index] = form.outcome(example, labels)
        return [outcomes[index] for index in range(len(rows))]


def scored(prompt: Prompt, batch: BatchOutput, rows: Sequence[Example]) -> list[Tensor]:
    """Scores of each row's candidates [C], of contexts that have run."""
    tree = prompt.form.tree if prompt.method.sums_over_tokens else None
    if tree is not None:
        return list(tree.score(batch))
    return prompt.method.score(batch, [example.candidates for example in rows])


def _scores(
    prompt: Prompt, rows: Sequence[Example], learned: Learned, progress: Progress = ignore_progress
) -> list[Tensor]:
    """Candidates' scores, per row [C], on the CPU."""
    scores: dict[int, Tensor] = {}
    tree = prompt.form.tree
    asked = rows if tree is None else tree.shortened(rows)
    contexts = prompt.engine.contexts(asked, learned, progress, continued=prompt.method.sums_over_tokens)
    for indices, batch in contexts:
        with torch.no_grad():
            own = scored(prompt, batch, [rows[index] for index in indices])
        scores.update((index, row.cpu()) for index, row in zip(indices, own, strict=True))
    return [scores[index] for index in range(len(rows))]
