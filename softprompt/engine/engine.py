"""The engine: a plan bound to a base and a task. It runs what the plan says, when it says so, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ..base import Base
from ..types import Example, Ids, Progress, ignore_progress
from .batch import BatchOutput, predicted
from .cache import CacheConfig, RowCache, context_digest
from .encode import encode, in_buckets
from .frozen_layers import FrozenLayers
from .losses import summed_loss
from .past import Past, join, learned_past
from .pieces import Pieces
from .plan import FIRST_NAMES, NOTHING, Learned, Plan, Slot
from .rows import EngineRow, Piece, run, run_prefix

ENDS_AT_ONCE = 256  # states whose logits are taken together; each has V of them


class Engine:
    """Runs examples of one task through one base by one plan.

    Args:
        prefix_ids, cue, tail, question: ids of the slots that all rows share; `prefix_ids` stand before the text.
        cache: how rows' K/V, or their states below the first learned layer, are kept.
        reuse: other engines; the first that keeps the same rows lends them, whatever is learned behind them.
        start: what the method brings before its first step, where the plan begins in an upper layer: K/V below it.

    Attributes:
        context: digest of all that decides what is kept of a row.
        frozen: keys and values of the frozen tokens in front of all rows, once they have run.
    """

    def __init__(
        self,
        base: Base,
        plan: Plan,
        prefix_ids: Ids,
        cue: Ids,
        cache: CacheConfig | None = None,
        reuse: Sequence[Engine] = (),
        start: Learned = NOTHING,
        tail: Ids = (),
        question: Ids = (),
    ) -> None:
        self.plan, self.prefix_ids, self.question, self.cue, self.tail = plan, prefix_ids, question, cue, tail
        self.base = base.view(prepacked=plan.keeps_texts)
        self.pieces = Pieces(plan, {"prefix_ids": prefix_ids, "question": question, "cue": cue, "tail": tail})
        self._behind = len(question) + len(cue)  # tokens between a row's text and its answer
        self.config = config = cache or CacheConfig()
        dtype = config.dtype or base.dtype
        cut = [(FIRST_NAMES.get(slot.name, slot.name), slot.start, slot.stop) for slot in plan.row_frozen]
        slots = [slot for slot in plan.shared_live if plan.first_layer and slot.learned == "kv"]
        below = {slot.name: start.segments[slot.name].detach()[: plan.first_layer] for slot in slots}
        behind = (*question, *cue)
        self.context = context_digest(
            base.digest, base.arithmetic, dtype, prefix_ids, behind, cut, plan.first_layer, config.part, *below.values()
        )
        rows = next((other.cache for other in reuse if self._keeps_as(other)), None)
        if rows is None:
            rows = RowCache(self.layout(base), dtype, config.ram, config.disk, self.context if config.keep else None)
        self.cache: RowCache = rows
        self.frozen_layers = (
            FrozenLayers(self.base, plan, self.pieces.shared, below, self.cache) if plan.first_layer else None
        )
        self.frozen: Past | None = None
        self._ends: dict[Ids, Tensor] = {}  # text ids → last hidden state [H], where nothing is learned

    def size(self, example: Example) -> int:
        """Tokens of an example that run where nothing is kept, in all its windows; what is learned aside."""
        return len(example.text) + max(1, len(example.windows)) * (len(self.prefix_ids) + self._behind)

    @property
    def kept_states(self) -> int:
        """Texts whose last state is held, where nothing is learned in the row."""
        return len(self._ends)

    def layout(self, base: Base) -> tuple[int, ...]:
        """Shape of what is kept of a row, with 0 for its tokens."""
        s = base.shape
        return (0, s.hidden_size) if self.plan.first_layer else (s.layers, 2, s.kv_heads, 0, s.head_size)

    def same(self, other: Engine) -> bool:
        """Whether the other one does the same with the same rows."""
        return self.plan == other.plan and self._keeps_as(other)

    def _keeps_as(self, other: Engine) -> bool:
        return (self.context, self.config) == (other.context, other.config) and self.base.same(other.base)

    def shared_prefix(self, learned: Learned, low: bool = False) -> Past | None:
        """Keys and values that stand before all rows: of the frozen slots from their first run, of the live ones run now.

        Gradients flow into what is learned of it.

        Args:
            learned: what the method brings to this step.
            low: go on from kept states, in the layers from the first learned one on.
        """
        return run_prefix(self._live(learned), self.live_prefix(learned, low), self.plan.first_layer if low else 0)

    def live_prefix(self, learned: Learned, low: bool = False) -> Past | EngineRow | None:
        """The shared prefix of rows that run at once: its live tokens, if it has any, are a row that runs with them."""
        if self.frozen is None and self.plan.shared_frozen:
            with torch.no_grad():
                self.frozen = run_prefix(self.base, self._extend(self.base, None, self.plan.shared_frozen, NOTHING))
        return self._extend(self._live(learned), self.frozen, self.plan.shared_live, learned, low)

    def encode(self, examples: Sequence[Example], progress: Progress = ignore_progress) -> None:
        """Run what is frozen of every row, if it is not in the cache yet, and keep it."""
        if self.frozen_layers is not None:
            windows = [self.pieces.live_ids(window) for example in examples for window in example.runs]
            self.frozen_layers.encode(windows, progress)
        if not self.plan.keeps_texts:
            return
        with torch.no_grad():
            prefix = self.shared_prefix(NOTHING)  # nothing is learned before a text that can be kept

            def compute(part: Sequence[Ids]) -> Iterator[Tensor]:
                batch = run(self.base, [EngineRow(prefix, (), (ids,)) for ids in part], record=True)
                assert batch.kv is not None
                for place, ids in enumerate(part):
                    yield torch.stack([layer[:, place, :, : len(ids)] for layer in batch.kv])

            rows = [ids for example in examples if (ids := self.pieces.frozen_ids(example))]
            encode(self.cache, rows, prefix.size if prefix else 0, compute, progress)

    def answers(
        self, examples: Sequence[Example], learned: Learned, among: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits at the right answers' positions, [A, V] or of the tokens `among` alone, and the answers' tokens [A]."""
        low = self._kept(examples)
        prefix, middle = self.live_prefix(learned, low), self.middle(learned)
        rows = [self.row(example, prefix, middle, example.answer[:-1], low) for example in examples]
        batch = run(self.base, rows, self.cache, live=self._live(learned), first=self.plan.first_layer if low else 0)
        return predicted(batch, [example.answer for example in examples], among)

    def pooled(self, examples: Sequence[Example], learned: Learned) -> Tensor:
        """What a head reads of each row: the state at the end of its context, [B, H], with gradients."""
        prefix, middle = self.live_prefix(learned), self.middle(learned)
        rows = [self.row(example, prefix, middle) for example in examples]
        return run(self.base, rows, self.cache, live=self._live(learned)).last

    def text_states(self, examples: Sequence[Example], learned: Learned) -> list[Tensor]:
        """Last hidden states of each row's text, per row [T, H], in one forward, with gradients.

        What stands behind the text has no part in them: where nothing is learned before its end, they are the bare base's.
        """
        if self._kept(examples):
            return self._kept_text_states(examples, learned)
        slots = (*self.plan.row_frozen, *self.plan.row_live)
        stop = 1 + max(index for index, slot in enumerate(slots) if slot.name == "text")
        if stop <= len(self.plan.row_frozen):
            learned = NOTHING
        prefix, middle = self.live_prefix(learned), self.middle(learned)
        rows = [EngineRow(prefix, (), self.pieces.of(slots[:stop], middle, example)) for example in examples]
        batch = run(self.base, rows, live=self._live(learned))
        return [batch.states[end - len(one.text) : end] for end, one in zip(batch.ends.tolist(), examples, strict=True)]

    def _kept_text_states(self, examples: Sequence[Example], learned: Learned) -> list[Tensor]:
        """The same from states that are kept below the first learned layer, those of the cue among them."""
        prefix, middle = self.live_prefix(learned, low=True), self.middle(learned)
        rows = [self.row(example, prefix, middle, low=True) for example in examples]
        batch = run(self.base, rows, live=self._live(learned), first=self.plan.first_layer)
        ends = zip((batch.ends - self._behind).tolist(), examples, strict=True)
        return [batch.states[end - len(one.text) : end] for end, one in ends]

    def loss(self, examples: Sequence[Example], learned: Learned) -> tuple[Tensor, int]:
        """Σ cross-entropy over the right answers' tokens, each times its row's weight, and how many there are."""
        logits, targets = self.answers(examples, learned)
        return summed_loss(logits, targets, examples, [len(example.answer) for example in examples]), len(targets)

    def contexts(
        self,
        examples: Sequence[Example],
        learned: Learned,
        progress: Progress = ignore_progress,
        continued: bool = True,
        open_ended: bool = False,
    ) -> Iterator[tuple[list[int], BatchOutput]]:
        """Run every example up to its answer, in length buckets, without gradients.

        Where nothing is learned and nothing follows, each text runs once, however often it is asked for.

        Args:
            continued: answers of several tokens will be run behind the contexts, which are recorded for that.
            open_ended: so will answers that nobody knows yet.

        Yields:
            (indices of the examples in this batch, their contexts).
        """
        followed = [open_ended or (continued and any(len(ids) > 1 for ids in one.candidates)) for one in examples]
        long = {index for index, follows in enumerate(followed) if follows}
        if self.plan.learns or long:
            yield from self._run_contexts(examples, learned, progress, long)
            return
        ends = self._ends if self.config.keeps_any else {}
        fresh = list({example.text: example for example in examples if example.text not in ends}.values())
        for part, batch in self._run_contexts(fresh, NOTHING, progress, set()):
            ends.update(zip((fresh[index].text for index in part), batch.last, strict=True))
        for begin in range(0, len(examples), ENDS_AT_ONCE):
            part = list(range(begin, min(begin + ENDS_AT_ONCE, len(examples))))
            states = torch.stack([ends[examples[index].text] for index in part])
            yield part, BatchOutput(self.base, states, torch.arange(1, len(part) + 1, device=states.device))

    def _run_contexts(
        self, examples: Sequence[Example], learned: Learned, progress: Progress, long: set[int]
    ) -> Iterator[tuple[list[int], BatchOutput]]:
        with torch.no_grad():
            low = not long and self._kept(examples)  # what follows a context needs its keys in all layers
            prefix, middle = self.shared_prefix(learned, low), self.middle(learned)
            rows = [self.row(example, prefix, middle, low=low) for example in examples]
            live, first = self._live(learned), self.plan.first_layer if low else 0

            def run_part(part: list[int]) -> BatchOutput:
                record = not long.isdisjoint(part)
                return run(self.base, [rows[index] for index in part], self.cache, record, live, first)

            yield from in_buckets([row.size for row in rows], run_part, progress)

    def features(
        self,
        examples: Sequence[Example],
        progress: Progress = ignore_progress,
        averaged: bool = False,
        learned: Learned = NOTHING,
    ) -> Tensor:
        """Last state of each context, [B, H], fp32 on the CPU; `averaged`: the mean of the row's, on a bidirectional base."""
        found = torch.empty(len(examples), self.base.shape.hidden_size)
        for part, batch in self.contexts(examples, learned, progress, continued=False):
            found[part] = (batch.pooled if averaged else batch.last).float().cpu()
        return found

    def middle(self, learned: Learned) -> dict[str, Piece]:
        """Learned segments that stand after the text, by slot name, as pieces of every row."""
        pieces: dict[str, Piece] = {}
        for slot in self.plan.row_live:
            if slot.learned is not None and slot.name in learned.segments:
                value = learned.segments[slot.name].to(self.base.dtype)  # from fp32, the base may be bf16
                pieces[slot.name] = learned_past(value, False, slot.rotated) if slot.learned == "kv" else value
        return pieces

    def row(
        self,
        example: Example,
        prefix: Past | EngineRow | None,
        middle: Mapping[str, Piece],
        answer: Ids = (),
        low: bool = False,
    ) -> EngineRow:
        """The example as a row for `run`, what is frozen of it from the cache where it is kept."""
        if low and self.frozen_layers is not None:
            size = self._behind + len(example.text) + len(answer)
            return EngineRow(prefix, (), (self.frozen_layers.states(self.pieces.live_ids(example))[:size],))
        frozen = self.pieces.frozen_ids(example)
        live = (*self.pieces.of(self.plan.row_live, middle, example), answer)
        if frozen and self.plan.keeps_texts and frozen in self.cache:
            return EngineRow(prefix, frozen, live)
        if any(slot.adapted for slot in self.plan.row_live):
            return EngineRow(prefix, (), live, frozen)
        return EngineRow(prefix, (), (frozen, *live))

    def _live(self, learned: Learned) -> Base:
        """What live tokens run through."""
        return self.base if learned.base is None else learned.base.view(prepacked=self.plan.keeps_texts)

    def _kept(self, examples: Sequence[Example]) -> bool:
        """Whether the states of all these rows are kept."""
        return self.frozen_layers is not None and all(self.pieces.live_ids(row) in self.cache for row in examples)

    def _extend(
        self, base: Base, past: Past | None, slots: Sequence[Slot], learned: Learned, low: bool = False
    ) -> Past | EngineRow | None:
        """Shared slots behind `past` as one more row; learned K/V is put in its place, what is before it has run then."""
        pieces: list[Piece] = []
        first = self.plan.first_layer if low else 0

        def behind() -> Past | EngineRow | None:
            row = EngineRow(past, (), tuple(pieces))
            pieces.clear()
            return row if row.live_tokens else past

        for slot in slots:
            value = learned.segments.get(slot.name) if slot.learned else None
            if slot.learned is None:
                pieces.append(self.pieces.shared_ids(slot))
            elif value is not None and slot.learned == "kv":
                past = run_prefix(base, behind(), first)
                new = learned_past(value.to(base.dtype), slot.takes_positions and base.keeps_positions)
                past = join([new] if past is None else [past, new])
            elif value is not None:
                pieces.append(value)
        if low and self.frozen_layers is not None:
            states = self.frozen_layers.prefix()[1]
            pieces[:] = [] if states is None else [states]  # in place of `prefix_ids`
        return behind()
