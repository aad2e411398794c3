"""Models whose tokens see each other both ways: nothing of a row stands "before", so every row runs whole; every
time where something is learned in it.

Answers stand where the template has them, as mask tokens (a cloze: Schick & Schütze 2021, arXiv:2001.07676); an answer of
several tokens takes as many masks, each guessed by itself. Or a head reads them off the states (P-tuning v2: Liu et al. 2022,
arXiv:2110.07602).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..types import Example, Ids, Progress, ignore_progress
from .batch import BatchOutput
from .encode import in_buckets
from .engine import ENDS_AT_ONCE, Engine
from .past import Past
from .plan import Learned
from .rows import EngineRow, Piece, run


@dataclass(frozen=True)
class ClozeOutput(BatchOutput):
    """Rows that ran whole.

    Attributes:
        means: mean of each row's last hidden states, [B, H].
        guesses: by number of masks k, the states at them, [B, k, H].
    """

    means: Tensor = field(default_factory=lambda: torch.empty(0))
    guesses: dict[int, Tensor] = field(default_factory=dict)

    @property
    def pooled(self) -> Tensor:
        """Mean of each row's states, [B, H]."""
        return self.means

    def score(self, candidates: Sequence[Sequence[Ids]]) -> list[Tensor]:
        """Σ log p(token at its mask) of every candidate of every row, per row [C]."""
        logp = {k: self.base.logits(states.flatten(0, 1)).log_softmax(-1) for k, states in self.guesses.items()}
        found = []
        for row, options in enumerate(candidates):
            values = [
                sum(logp[len(ids)][row * len(ids) + place, token] for place, token in enumerate(ids)) for ids in options
            ]
            found.append(torch.stack([torch.as_tensor(value) for value in values]))
        return found


class BidirectionalEngine(Engine):
    """Runs examples of one task through a masked model or an encoder."""

    def row(
        self,
        example: Example,
        prefix: Past | EngineRow | None,
        middle: Mapping[str, Piece],
        answer: Ids = (),
        low: bool = False,
    ) -> EngineRow:
        """The example as a row for `run`; `answer` is a mask for each of its tokens."""
        return EngineRow(prefix, (), self.pieces.of(self.plan.row_live, middle, example, answer))

    def answers(
        self, examples: Sequence[Example], learned: Learned, among: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits [A, V] at the right answers' masks, or of the tokens `among` alone, and the answers' tokens [A]."""
        masks = [self._masks(len(example.answer)) for example in examples]
        batch, starts = self._run(examples, learned, masks)
        places = [start + k for start, ids in zip(starts, masks, strict=True) for k in range(len(ids))]
        logits = batch.base.logits(
            batch.states[places], None if among is None else torch.tensor(among, device=batch.states.device)
        )
        return logits, torch.tensor([token for one in examples for token in one.answer], device=logits.device)

    def text_states(self, examples: Sequence[Example], learned: Learned) -> list[Tensor]:
        """Last hidden states of each row's text, per row [T, H], in one forward, with gradients."""
        batch, starts = self._run(examples, learned, [()] * len(examples), "text")
        return [batch.states[at : at + len(one.text)] for at, one in zip(starts, examples, strict=True)]

    def pooled(self, examples: Sequence[Example], learned: Learned) -> Tensor:
        """Mean of each row's states, [B, H], with gradients."""
        batch, _ = self._run(examples, learned, [()] * len(examples))
        return _means(batch)

    def contexts(
        self,
        examples: Sequence[Example],
        learned: Learned,
        progress: Progress = ignore_progress,
        continued: bool = True,
        open_ended: bool = False,
    ) -> Iterator[tuple[list[int], BatchOutput]]:
        """Run every example, in length buckets, without gradients; once for each length that its candidates have.

        Where nothing is learned in the row and nothing is guessed, each text runs once, however often it is asked for.
        """
        guess = continued and learned.head is None and self.base.mask_id is not None
        if self.plan.learns or guess:
            yield from self._whole_rows(examples, learned, progress, guess)
            return
        kept = self._ends if self.config.keeps_any else {}
        fresh = list({example.text: example for example in examples if example.text not in kept}.values())
        for part, batch in self._whole_rows(fresh, learned, progress):
            both = torch.stack([batch.last, batch.pooled], 1)
            kept.update(zip((fresh[index].text for index in part), both, strict=True))
        for begin in range(0, len(examples), ENDS_AT_ONCE):
            part = list(range(begin, min(begin + ENDS_AT_ONCE, len(examples))))
            states = torch.stack([kept[examples[index].text] for index in part])
            ends = torch.arange(1, len(part) + 1, device=states.device)
            yield part, ClozeOutput(self.base, states[:, 0], ends, means=states[:, 1])

    def _whole_rows(
        self, examples: Sequence[Example], learned: Learned, progress: Progress, guess: bool = False
    ) -> Iterator[tuple[list[int], BatchOutput]]:
        """Rows in length buckets, with masks where words are to be guessed."""

        def run_part(part: list[int]) -> BatchOutput:
            return self._clozes([examples[index] for index in part], learned, guess)

        with torch.no_grad():
            yield from in_buckets([self.size(example) for example in examples], run_part, progress)

    def _clozes(self, rows: Sequence[Example], learned: Learned, guess: bool) -> ClozeOutput:
        counts = sorted({len(ids) for row in rows for ids in row.candidates}) if guess else []
        guesses, batch = {}, None
        for count in counts or [0]:
            batch, starts = self._run(rows, learned, [self._masks(count)] * len(rows))
            places = torch.tensor(starts)[:, None] + torch.arange(count)
            guesses[count] = batch.states[places.to(batch.states.device)]
        assert batch is not None
        ends = torch.arange(1, len(rows) + 1, device=batch.states.device)
        return ClozeOutput(batch.base, batch.last, ends, means=_means(batch), guesses=guesses)

    def _run(
        self, examples: Sequence[Example], learned: Learned, masks: Sequence[Ids], of: str = "answer"
    ) -> tuple[BatchOutput, list[int]]:
        """One forward over whole rows, and where among the packed states this slot of each row begins."""
        prefix, middle = self.shared_prefix(learned), self.middle(learned)
        rows = [self.row(one, prefix, middle, ids) for one, ids in zip(examples, masks, strict=True)]
        batch = run(self.base, rows, live=self._live(learned))
        names = [slot.name for slot in self.plan.row_live]
        before = self.plan.row_live[: names.index(of)]
        starts, at = [], 0
        for example, length in zip(examples, batch.lengths, strict=True):
            pieces = self.pieces.of(before, middle, example)
            starts.append(at + sum(len(piece) for piece in pieces if not isinstance(piece, Past)))
            at += length
        return batch, starts

    def _masks(self, count: int) -> Ids:
        return () if self.base.mask_id is None else (self.base.mask_id,) * count


def _means(batch: BatchOutput) -> Tensor:
    """Mean of each row's states [B, H]."""
    return torch.stack([states.mean(0) for states in batch.states.split(batch.lengths)])
