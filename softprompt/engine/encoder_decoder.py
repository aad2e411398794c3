"""Sequence-to-sequence models: an encoder reads the row, a decoder writes the answer (Raffel et al. 2020, arXiv:1910.10683).

What is learned may stand on either side. On the decoder's side nothing learned stands before the text, so the encoder's
states of a row never change. They are computed once per row and kept; a step runs only the decoder over the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..base import Base
from ..types import Example, Ids, Progress, ignore_progress
from .batch import BatchOutput, predicted
from .encode import encode, in_buckets
from .engine import Engine
from .plan import Learned
from .rows import EngineRow, Piece, run


@dataclass(frozen=True)
class DecoderOutput(BatchOutput):
    """Decoders whose first tokens have run: what they run in front of every answer, and what each row's encoder has read.

    A decoder's modules count positions from 0 by themselves, so no keys are kept of it; answers are short.

    Attributes:
        decoder_prefix: learned pieces and the tokens that a decoder starts with.
        encoder_hidden_states: per row [m, H].
    """

    reruns: ClassVar[bool] = True
    decoder_prefix: tuple[Piece, ...] = ()
    encoder_hidden_states: tuple[Tensor, ...] = ()

    @property
    def keys(self) -> int:
        """Of the encoder as well."""
        return max((len(states) for states in self.encoder_hidden_states), default=0) + max(self.lengths, default=0)

    def follow(self, rows: Sequence[int], answers: Sequence[Ids]) -> Tensor:
        """As for any batch; `decoder_prefix` is run again before each answer."""
        batch = run(
            self.base,
            [EngineRow(None, (), (*self.decoder_prefix, ids[:-1])) for ids in answers],
            encoder_hidden_states=_pick(self.encoder_hidden_states, rows),
        )
        found = zip(batch.ends.tolist(), answers, strict=True)
        return batch.states[[place for end, ids in found for place in range(end - len(ids) + 1, end)]]


class EncoderDecoderEngine(Engine):
    """Runs examples of one task through an encoder and a decoder."""

    def __init__(self, base: Base, *args: Any, **kwargs: Any) -> None:
        super().__init__(base, *args, **kwargs)
        self.pieces.shared["start"] = base.start_ids
        self._read = self.plan.row_frozen or tuple(slot for slot in self.plan.row_live if not slot.decoder)
        self._write = tuple(slot for slot in self.plan.row_live if slot.decoder)

    def layout(self, base: Base) -> tuple[int, ...]:
        return (0, base.encoder.shape.hidden_size)

    def encode(self, examples: Sequence[Example], progress: Progress = ignore_progress) -> None:
        """Let the encoder read what is not in the cache yet, if nothing learned stands there, and keep its states."""
        if self.plan.keeps_texts:
            rows = [self.pieces.frozen_ids(example) for example in examples]
            with torch.no_grad():
                encode(self.cache, rows, 0, self._frozen_states, progress)

    def answers(
        self, examples: Sequence[Example], learned: Learned, among: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """As for any engine."""
        answers = [example.answer for example in examples]
        return predicted(self._begin(examples, learned, [ids[:-1] for ids in answers]), answers, among)

    def pooled(self, examples: Sequence[Example], learned: Learned) -> Tensor:
        """The decoder's state as it begins, [B, H], with gradients."""
        return self._begin(examples, learned, [()] * len(examples)).last

    def contexts(
        self,
        examples: Sequence[Example],
        learned: Learned,
        progress: Progress = ignore_progress,
        continued: bool = True,
        open_ended: bool = False,
    ) -> Iterator[tuple[list[int], BatchOutput]]:
        """Every row read, and its decoder begun, in length buckets, without gradients."""

        def run_part(part: list[int]) -> BatchOutput:
            return self._begin([examples[index] for index in part], learned, [()] * len(part))

        with torch.no_grad():
            yield from in_buckets([self.size(example) for example in examples], run_part, progress)

    def encoder_hidden_states(self, examples: Sequence[Example], learned: Learned) -> tuple[Tensor, ...]:
        """What the encoder makes of each row, [m, H]; rows that read the same are read once."""
        distinct = list({(one.text, one.holes): one for one in examples}.values())
        if self.plan.row_frozen:
            states = self._frozen_encoder_states([self.pieces.frozen_ids(one) for one in distinct])
        else:
            prefix, middle = self.shared_prefix(learned), self.middle(learned)
            rows = [EngineRow(prefix, (), self.pieces.of(self._read, middle, one)) for one in distinct]
            batch = run(self._live(learned).encoder, rows)
            states = batch.states.split(batch.lengths)
        places = {(one.text, one.holes): place for place, one in enumerate(distinct)}
        return _pick(states, [places[one.text, one.holes] for one in examples])

    def _frozen_encoder_states(self, rows: Sequence[Ids]) -> Sequence[Tensor]:
        """Kept states, and those of rows that are not kept computed now."""
        with torch.no_grad():
            missing = [ids for ids in rows if ids not in self.cache]
            found = dict(zip(missing, self._frozen_states(missing), strict=True)) if missing else {}
            return [
                found[ids] if ids in found else self.cache.get(ids).to(self.base.device, self.base.dtype)
                for ids in rows
            ]

    def _frozen_states(self, rows: Sequence[Ids]) -> Sequence[Tensor]:
        batch = run(self.base.encoder, [EngineRow(None, (), (ids,)) for ids in rows])
        return batch.states.split(batch.lengths)

    def _begin(self, examples: Sequence[Example], learned: Learned, written: Sequence[Ids]) -> DecoderOutput:
        """The decoder's forward over its prefix and what is written behind it."""
        states, middle = self.encoder_hidden_states(examples, learned), self.middle(learned)
        rows = [
            EngineRow(None, (), self.pieces.of(self._write, middle, one, ids))
            for one, ids in zip(examples, written, strict=True)
        ]
        batch = run(self.base, rows, live=self._live(learned), encoder_hidden_states=states)
        prefix = self.pieces.of(self._write, middle, examples[0])
        return DecoderOutput(
            batch.base,
            batch.states,
            batch.ends,
            [],
            batch.lengths,
            decoder_prefix=prefix,
            encoder_hidden_states=states,
        )


def _pick(of: Sequence[Tensor], places: Sequence[int]) -> tuple[Tensor, ...]:
    return tuple(of[place] for place in places)
