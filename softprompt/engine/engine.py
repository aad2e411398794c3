"""The engine: a plan bound to a base and a task. It runs what the plan says, when it says so, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..base import Base
from ..types import Example, Ids, Progress, ignore_progress
from .cache import RowCache, context_digest
from .past import Past, join, learned_past
from .plan import Plan, Slot
from .rows import Batch, Piece, Row, run

ENDS_AT_ONCE = 256  # states whose logits are taken together; each has V of them
TOKENS_PER_FORWARD = 4096  # keys of all rows together; above it matrix products gain nothing, memory only grows


@dataclass(frozen=True)
class CacheConfig:
    """How rows' K/V is kept: `dtype` (None: the base's own, exact), bytes in RAM and on disk, kept after the run or not."""

    dtype: torch.dtype | None = None
    ram: int = 4_000_000_000
    disk: int = 50_000_000_000
    keep: bool = False


class Engine:
    """Runs examples of one task through one base by one plan.

    Args:
        head, cue: ids of the slots that all rows share.
        cache: how rows' K/V is kept.
    """

    def __init__(self, base: Base, plan: Plan, head: Ids, cue: Ids, cache: CacheConfig | None = None) -> None:
        self.plan, self.head, self.cue = plan, head, cue
        self.base = base.for_small_steps() if self.caches_rows else base
        self._ids = {"head": head, "cue": cue}
        self.config = config = cache or CacheConfig()
        dtype = config.dtype or base.dtype
        cut = [(slot.name, slot.start, slot.stop) for slot in plan.row_frozen]
        context = context_digest(base.digest, base.arithmetic, dtype, head, cue, cut)
        self.cache = RowCache(base.shape, dtype, config.ram, config.disk, context if config.keep else None)
        self._frozen: Past | None = None
        self._ends: dict[Ids, Tensor] = {}  # text ids → last hidden state [H], where nothing is learned

    @property
    def caches_rows(self) -> bool:
        """Whether something learned follows the text, so that encoding rows once pays."""
        return bool(self.plan.row_frozen) and any(slot.learned for slot in self.plan.row_live)

    @property
    def learns(self) -> bool:
        """Whether the plan has a learned slot."""
        return any(slot.learned for slot in (*self.plan.trunk_live, *self.plan.row_live))

    def trunk(self, learned: Tensor | None) -> Past | None:
        """What stands before all rows: the frozen part from its first run, the live part run now, with gradients.

        Args:
            learned: the method's finished segment of this step, embeddings [P, H] or K/V [L, 2, G, P, D].
        """
        if self._frozen is None and self.plan.trunk_frozen:
            with torch.no_grad():
                self._frozen = self._extend(None, self.plan.trunk_frozen, None)
        return self._extend(self._frozen, self.plan.trunk_live, learned)

    def encode(self, examples: Sequence[Example], progress: Progress = ignore_progress) -> None:
        """Run the frozen part of every row that is not in the cache yet and keep its K/V."""
        if not self.caches_rows:
            return
        todo = sorted({self._frozen_ids(example) for example in examples}, key=lambda ids: (len(ids), ids))
        missing = [ids for ids in todo if ids not in self.cache]
        if not missing:
            return
        self.cache.reserve([len(ids) for ids in missing])
        done = 0
        with torch.no_grad():
            trunk = self.trunk(None)  # nothing is learned before a text that can be kept
            for part in parts(missing, [len(ids) + (trunk.size if trunk else 0) for ids in missing]):
                batch = run(self.base, [Row(trunk, (), (ids,)) for ids in part], record=True)
                assert batch.kv is not None
                for place, ids in enumerate(part):
                    self.cache.put(ids, [layer[:, place, :, : len(ids)] for layer in batch.kv])
                done += len(part)
                progress("encoding rows", done, len(missing))
        self.cache.save_index()

    def loss(self, examples: Sequence[Example], learned: Tensor | None) -> tuple[Tensor, int]:
        """Σ cross-entropy over the right answers' tokens, and how many they are.

        The LM head runs at these positions only. The caller divides by the tokens of the whole accumulation window.
        """
        trunk = self.trunk(learned)
        middle = self._middle(learned)
        rows = [self.row(example, trunk, middle, example.answer[:-1]) for example in examples]
        batch = run(self.base, rows, self.cache)
        answers = [example.answer for example in examples]
        # logits at position i predict token i + 1: from the context's last token to the answer's last but one
        places = [
            end - len(ids) + step
            for end, ids in zip(batch.ends.tolist(), answers, strict=True)
            for step in range(len(ids))
        ]
        logits = self.base.logits(batch.states[places])
        targets = torch.tensor([token for ids in answers for token in ids], device=logits.device)
        return torch.nn.functional.cross_entropy(logits, targets, reduction="sum"), len(targets)

    def contexts(
        self,
        examples: Sequence[Example],
        learned: Tensor | None,
        progress: Progress = ignore_progress,
        continued: bool = True,
    ) -> Iterator[tuple[list[int], Batch]]:
        """Run every example up to its answer, in length buckets, without gradients.

        Where nothing is learned and nothing follows, each text runs once, however often it is asked for.

        Args:
            continued: answers of several tokens will be run behind the contexts, which are recorded for that.

        Yields:
            (indices of the examples in this batch, their contexts).
        """
        long = continued and any(len(ids) > 1 for example in examples for ids in example.candidates)
        if self.learns or long:
            yield from self._run_contexts(examples, learned, progress, continued)
            return
        fresh = list({example.text: example for example in examples if example.text not in self._ends}.values())
        for part, batch in self._run_contexts(fresh, None, progress, False):
            self._ends.update(zip((fresh[index].text for index in part), batch.last, strict=True))
        for begin in range(0, len(examples), ENDS_AT_ONCE):
            part = list(range(begin, min(begin + ENDS_AT_ONCE, len(examples))))
            states = torch.stack([self._ends[examples[index].text] for index in part])
            yield part, Batch(states, torch.arange(1, len(part) + 1, device=states.device))

    def _run_contexts(
        self, examples: Sequence[Example], learned: Tensor | None, progress: Progress, continued: bool
    ) -> Iterator[tuple[list[int], Batch]]:
        with torch.no_grad():
            trunk = self.trunk(learned)
            middle = self._middle(learned)
            rows = [self.row(example, trunk, middle) for example in examples]
            order = sorted(range(len(rows)), key=lambda index: (rows[index].size, index))
            done = 0
            for part in parts(order, [rows[index].size for index in order]):
                record = continued and any(len(ids) > 1 for index in part for ids in examples[index].candidates)
                yield part, run(self.base, [rows[index] for index in part], self.cache, record)
                done += len(part)
                progress("evaluating", done, len(rows))

    def features(self, examples: Sequence[Example], progress: Progress = ignore_progress) -> Tensor:
        """Last hidden state at the end of each context, [B, H], fp32 on the CPU: what the base knows before it answers."""
        found = torch.empty(len(examples), self.base.shape.hidden_size)
        for part, batch in self.contexts(examples, None, progress, continued=False):
            found[part] = batch.last.float().cpu()
        return found

    def compile(self, learned: Tensor | None) -> tuple[Past | None, Piece | None]:
        """A finished prompt ready to serve: its trunk's K/V, and the learned piece that follows a row's text."""
        with torch.no_grad():
            trunk = self.trunk(learned)
            return (trunk.detach() if trunk else None), self._middle(learned)

    def row(self, example: Example, trunk: Past | None, middle: Piece | None, answer: Ids = ()) -> Row:
        """The example as a row for `run`, its text from the cache where it is kept."""
        frozen = self._frozen_ids(example) if self.caches_rows else ()
        live = (*self._pieces(self.plan.row_live, middle, example.text), answer)
        if frozen and frozen in self.cache:
            return Row(trunk, frozen, live)
        return Row(trunk, (), (*self._pieces(self.plan.row_frozen, None, example.text), *live))

    def _middle(self, learned: Tensor | None) -> Piece | None:
        """The learned segment as a piece of every row, when it stands after the text."""
        for slot in self.plan.row_live:
            if slot.learned is not None and learned is not None:
                value = learned.to(self.base.dtype)  # learned tensors are fp32, the base may be bf16
                return learned_past(value, False) if slot.learned == "kv" else value
        return None

    def _pieces(self, slots: Sequence[Slot], middle: Piece | None, text: Ids) -> tuple[Piece, ...]:
        """What stands in these slots of a row; the answer is the caller's."""
        pieces: list[Piece] = []
        for slot in slots:
            if slot.learned is not None:
                if middle is not None:
                    pieces.append(middle)
            elif slot.name == "text":
                pieces.append(text)
            elif slot.name != "answer":
                pieces.append(self._shared_ids(slot))
        return tuple(pieces)

    def _shared_ids(self, slot: Slot) -> Ids:
        return self._ids[slot.name][slot.start : slot.stop]

    def _frozen_ids(self, example: Example) -> Ids:
        parts = self._pieces(self.plan.row_frozen, None, example.text)
        return tuple(token for part in parts if isinstance(part, tuple) for token in part)

    def _extend(self, past: Past | None, slots: Sequence[Slot], learned: Tensor | None) -> Past | None:
        """Run shared slots behind `past` as a batch of one; learned K/V is put in its place without running."""
        pieces: list[Piece] = []

        def flush() -> None:
            nonlocal past
            row = Row(past, (), tuple(pieces))
            if row.live_tokens:
                batch = run(self.base, [row], record=True)
                assert batch.kv is not None
                places = torch.arange(row.live_tokens, device=self.base.device) + row.start
                new = Past(batch.kv, places, row.live_tokens)
                past = join([new] if past is None else [past, new])
            pieces.clear()

        for slot in slots:
            if slot.learned == "kv" and learned is not None:
                flush()
                new = learned_past(learned.to(self.base.dtype), slot.takes_positions)
                past = join([new] if past is None else [past, new])
            elif slot.learned == "embeddings" and learned is not None:
                pieces.append(learned)
            elif slot.learned is None:
                pieces.append(self._shared_ids(slot))
        flush()
        return past


def parts(items: Sequence, sizes: Sequence[int]) -> Iterator[list]:
    """Cut sorted items into parts of at most `TOKENS_PER_FORWARD` padded keys (at least one item each)."""
    part: list = []
    for item, size in zip(items, sizes, strict=True):
        if part and (len(part) + 1) * size > TOKENS_PER_FORWARD:
            yield part
            part = []
        part.append(item)
    if part:
        yield part
