"""A text that is read once for many prompts: its keys and values behind what stands in front of it.

A prompt that learns nothing before the end of the text (`infix`, activated LoRA, `hard`, a probe) reads the text as the
bare base does. So all such prompts with the same tokens in front of the text share what the base computes of it. What is
frozen behind the text, such as a prompt's question, is kept as well. Each prompt runs only what it learned and what follows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..base import Base
from ..types import Example, Ids, ignore_progress
from .cache import RowCache
from .encode import encode, parts
from .engine import Engine
from .past import Past, join
from .rows import EngineRow, Piece, run

UNBOUNDED = 1 << 62  # bytes: whoever keeps readings has the budget


@dataclass(frozen=True)
class TextKey:
    """What the keys and values of a text depend on. Never a name: names are given anew.

    Attributes:
        base: digest of the weights.
        arithmetic: how they are computed with (dtype, quantisation, autocast).
        device: where.
        prefix_ids: ids in front of the text.
        text: ids of the text.
    """

    base: str
    arithmetic: str
    device: str
    prefix_ids: Ids
    text: Ids


def take_prefix(engine: Engine, others: Iterable[Engine]) -> None:
    """Take the keys and values of the frozen tokens in front of all rows from an engine that has run the same ones."""
    wanted = _frozen_ids(engine)
    for other in others:
        if wanted and other.frozen is not None and wanted == _frozen_ids(other) and engine.base.same(other.base):
            engine.frozen = other.frozen
            return


def _frozen_ids(engine: Engine) -> list[Ids]:
    return [engine.pieces.shared_ids(slot) for slot in engine.plan.shared_frozen]


@dataclass(frozen=True)
class Reading:
    """A text that has been read.

    Attributes:
        past: keys and values of all up to the text's end.
        text: ids of the text.
        following: keys and values of frozen ids that follow the text, by these ids.
    """

    past: Past
    text: Ids
    following: RowCache
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def nbytes(self) -> int:
        """Bytes of its keys and values."""
        return sum(layer.nbytes for layer in self.past.kv if layer is not None) + self.following.nbytes

    @torch.no_grad()
    def read_on(self, base: Base, ids: Sequence[Ids]) -> None:
        """Read frozen ids behind the text, each by itself, and keep them."""

        def compute(some: Sequence[Ids]) -> Iterator[Tensor]:
            batch = run(base, [EngineRow(self.past, (), (one,)) for one in some], record=True)
            assert batch.kv is not None
            for row, one in enumerate(some):
                yield torch.stack([layer[:, row, :, : len(one)] for layer in batch.kv])

        with self.lock:
            encode(self.following, ids, 0, compute, ignore_progress)

    def behind(self, row: EngineRow, left: Ids) -> EngineRow:
        """A row that begins with this text, as a row behind it.

        Args:
            left: what follows the text in it and is kept, or could be (see `left_behind`).
        """
        kept = left if left in self.following else ()
        size = len(self.text) + len(kept)
        if row.frozen:
            return replace(row, shared_prefix=self.past, cached=kept, frozen=row.frozen[size:])
        first, *rest = row.live
        assert isinstance(first, tuple) and first[: len(self.text)] == self.text, "the row begins with another text"
        runs: tuple[Piece, ...] = (first[size:],) if first[size:] else ()
        return replace(row, shared_prefix=self.past, cached=kept, live=(*runs, *rest))


def kept_ids(engine: Engine, example: Example) -> tuple[Ids, Ids]:
    """The row's text, and the ids behind it, whose keys and values the bare base computes; both empty if it cannot be shared.

    Where nothing runs behind them, the last one is left out: the answer is read off its state.
    """
    slots = engine.plan.row_frozen
    if not engine.base.mixes_prompts or not slots or slots[0].name != "text":
        return (), ()
    frozen, size = engine.pieces.frozen_ids(example), len(example.part(slots[0].part))
    live = engine.plan.row_live
    runs = any(slot.learned == "embeddings" for slot in live) or any(engine.pieces.of(live, {}, example))
    frozen = frozen if runs else frozen[:-1]
    return frozen[:size], frozen[size:]


def left_behind(engine: Engine, example: Example, text: Ids) -> Ids:
    """What the bare base computes of a row behind a text that it begins with: the rest of its own, question and cue."""
    own, behind = kept_ids(engine, example)
    return (*own[len(text) :], *behind)


def text_key(engine: Engine, example: Example) -> TextKey | None:
    """What a row's text may be shared by; None where it cannot be."""
    text, base = kept_ids(engine, example)[0], engine.base
    return TextKey(base.digest, base.arithmetic, str(base.device), engine.prefix_ids, text) if text else None


@torch.no_grad()
def read_texts(engine: Engine, prefix: Past | None, texts: Sequence[Ids]) -> list[Reading]:
    """Read texts behind one prefix, in batches of like length.

    Args:
        prefix: keys and values of the tokens in front of all of them.
    """
    base, start = engine.base, prefix.width if prefix else 0
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    readings: dict[int, Reading] = {}
    for some in parts(order, [len(texts[index]) + start for index in order]):
        batch = run(base, [EngineRow(prefix, (), (texts[index],)) for index in some], record=True)
        assert batch.kv is not None
        for row, index in enumerate(some):
            size = len(texts[index])
            kv = [layer[:, row : row + 1, :, :size].clone() for layer in batch.kv]
            own = Past(kv, torch.arange(start, start + size, device=base.device), size)
            past = own if prefix is None else join([prefix, own])
            assert past is not None
            following = RowCache(engine.layout(base), base.dtype, UNBOUNDED, 0)
            readings[index] = Reading(past, texts[index], following)
    return [readings[index] for index in range(len(texts))]
