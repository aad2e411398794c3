"""Fixed answers as a tree of tokens: where several of them go on differently, only those compete, not the whole vocabulary.

At each branch, a token's probability is taken among the tokens with which some answer goes on there. The product of
these is the answer's probability, as constrained decoding over the same tree would draw it. So the probabilities of all
answers sum to one, and tokens that follow by themselves are not run. A loss starts at the log of the number of answers,
not of the vocabulary's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..types import Example, Ids
from .batch import BatchOutput, states_behind
from .losses import summed_loss


@dataclass(frozen=True)
class WordTree:
    """The answers that rows share, none of which begins another one.

    Attributes:
        answers: their ids in the order of the labels' words, none longer than it takes to tell it from the others (see
            `distinct_beginnings`).
        branches: ids behind which answers part → the tokens that they go on with, ascending.
    """

    answers: tuple[Ids, ...]
    branches: dict[Ids, Ids]

    @classmethod
    def of(cls, answers: Sequence[Ids]) -> WordTree:
        """The tree of these answers."""
        found: dict[Ids, set[int]] = {}
        for ids in answers:
            for place, token in enumerate(ids):
                found.setdefault(ids[:place], set()).add(token)
        return cls(tuple(answers), {ids: tuple(sorted(tokens)) for ids, tokens in found.items() if len(tokens) > 1})

    @cached_property
    def tokens(self) -> Ids:
        """All tokens that compete somewhere, ascending: the only ones whose logits are asked for."""
        return tuple(sorted({token for tokens in self.branches.values() for token in tokens}))

    def shortened(self, rows: Sequence[Example]) -> list[Example]:
        """The rows with the tree's answers in place of their own: what follows of itself does not run."""
        return [replace(example, candidates=self.answers) for example in rows]

    def loss(self, logits: Tensor, rows: Sequence[Example]) -> Tensor:
        """Σ over rows of -log p(right answer), each times the row's weight.

        Args:
            logits: [A, len(tokens)] of `tokens`, at each token of each right answer, end to end.
            rows: `shortened`.
        """
        choices: dict[Ids, list[tuple[int, int, Example]]] = {}
        at = 0
        for example in rows:
            ids = example.answer
            for step, token in enumerate(ids):
                if ids[:step] in self.branches:
                    choices.setdefault(ids[:step], []).append((at + step, token, example))
            at += len(ids)
        columns = {token: column for column, token in enumerate(self.tokens)}
        total = logits.new_zeros(())
        for before, some in choices.items():
            tokens = self.branches[before]
            competing = logits[[place for place, _, _ in some]][:, [columns[token] for token in tokens]]
            right = torch.tensor([tokens.index(token) for _, token, _ in some], device=logits.device)
            total = total + summed_loss(competing, right, [example for _, _, example in some], [1] * len(some))
        return total

    def score(self, batch: BatchOutput) -> Tensor:
        """Log-probability of each answer behind each row's context, [B, C].

        Args:
            batch: contexts; recorded if answers part behind their first token.
        """
        chosen = {}
        for before, tokens in self.branches.items():
            states = states_behind(batch, before) if before else batch.last
            chosen[before] = batch.base.logits(states, torch.tensor(tokens, device=states.device)).log_softmax(-1)
        first = batch.last
        columns = []
        for ids in self.answers:
            column = torch.zeros(len(first), device=first.device)
            for step, token in enumerate(ids):
                if (own := chosen.get(ids[:step])) is not None:
                    column = column + own[:, self.branches[ids[:step]].index(token)]
            columns.append(column)
        return torch.stack(columns, 1)


def distinct_beginnings(answers: Sequence[Ids]) -> tuple[Ids, ...]:
    """Of each answer the shortest beginning that no other answer has; equal answers get the same."""
    shared: dict[Ids, set[Ids]] = {}
    for ids in answers:
        for stop in range(1, len(ids) + 1):
            shared.setdefault(ids[:stop], set()).add(ids)
    return tuple(
        next((ids[:stop] for stop in range(1, len(ids) + 1) if len(shared[ids[:stop]]) == 1), ids) for ids in answers
    )
