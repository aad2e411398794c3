"""Answers of many requests, written together token by token; a request joins and leaves between any two tokens.

Each answer is the one that `Runtime.predict` gives: the same forwards, processors, draws and ends, whoever is written beside
it. A new request waits for one token of the others, and never for their ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..answers.generated import Generated, seed_of
from ..answers.serving import long_reading
from ..answers.streaming import AnswerStreamer
from ..base import Base, Block, check_numbers
from ..engine import EngineRow, Past, buckets, run
from ..engine.batch import context_blocks, select_rows
from ..engine.continued import Stops
from ..engine.decode import answer_of
from ..engine.draws import Draws, processors
from ..engine.past import block_of
from ..surroundings import plain_torch
from .written import WrittenAnswer as WrittenAnswer


class Writer:
    """Writes answers together. It has no locks: one thread calls `add` and `step`, and any may call `cancel`."""

    def __init__(self) -> None:
        self._groups: dict[tuple[int, int], _Group] = {}

    @property
    def active(self) -> int:
        """Answers that are under way, those that are cancelled up to the next step."""
        # any thread may ask, also while a group is added
        return sum(len(group.rows) for group in list(self._groups.values()))

    @plain_torch()
    @torch.no_grad()
    def add(self, answers: Sequence[WrittenAnswer]) -> None:
        """Run the contexts of new answers, batched by length, and write the first token of each.

        An error of the model reaches `on_done` of the answers that it concerns.

        Raises:
            ValueError: one of them cannot be written so (see `WrittenAnswer.refusal`); none is added.
        """
        if refused := next((reason for answer in answers if (reason := answer.refusal)), None):
            raise ValueError(refused)
        together: dict[tuple[int, int], list[WrittenAnswer]] = {}
        for answer in answers:
            key = id(answer.prompt.live.model), id(long_reading(answer.prompt))
            together.setdefault(key, []).append(answer)
        for key, some in together.items():
            group = self._groups.setdefault(key, _Group(some[0].prompt.live))
            for indices in buckets([answer.prompt.size(answer.example) for answer in some]):
                group.begin([some[index] for index in indices])
        self._forget_empty()

    @plain_torch()
    @torch.no_grad()
    def step(self) -> None:
        """Write one token of every active answer: a forward for each group of rows with the same weights."""
        for group in self._groups.values():
            group.step()
        self._forget_empty()

    def cancel(self, answer: WrittenAnswer) -> None:
        """Write no more of an answer; the next step frees its memory."""
        answer.cancelled = True

    def fail(self, error: Exception) -> None:
        """End every active answer with an error."""
        groups, self._groups = self._groups, {}
        for group in groups.values():
            for row in group.rows:
                if not row.answer.cancelled:
                    row.answer.on_done(error)

    def _forget_empty(self) -> None:
        self._groups = {key: group for key, group in self._groups.items() if group.rows}


class _Row:
    """One answer in a group.

    Attributes:
        shared_prefix: what stands in front of it, and of other rows with the same object.
    """

    def __init__(self, answer: WrittenAnswer, row: EngineRow) -> None:
        assert not isinstance(row.shared_prefix, EngineRow), "compiled prompts have run"
        self.answer, self.shared_prefix, self._width = answer, row.shared_prefix, row.width
        how, form = answer.how, answer.prompt.form
        assert isinstance(form, Generated)
        self._form = form if answer.generation is None else form.stopped_at(how.stop)
        self._longest = how.max_new_tokens
        self._tokenizer = form.bound.prompter.tokenizer
        draws = Draws([seed_of(how.seed, answer.example)]) if how.do_sample else None
        self._processors = processors(how.settings(), len(form.ends), draws)
        self._stops = Stops(self._tokenizer, self._form.stops) if self._form.stops else None
        self._streamer = AnswerStreamer(self._form, answer.tell) if answer.tell else None

    @property
    def position(self) -> int:
        """Where the last token that was written stands, which has not run yet."""
        return self._width + len(self.answer.ids) - 1

    def past(self, blocks: Sequence[Block]) -> Past:
        """What stands before that token and behind the shared prefix, without padding.

        Args:
            blocks: of this row alone, in order.
        """
        kept = [None if block.valid is None else block.valid[0].nonzero()[:, 0] for block in blocks]

        def joined(values: Sequence[Tensor], dim: int) -> Tensor:
            columns = zip(values, kept, strict=True)
            return torch.cat([one if seen is None else one.index_select(dim, seen) for one, seen in columns], dim)

        layers = [
            joined([torch.stack([*kv]) for kv in layer], 3) for layer in zip(*(b.kv for b in blocks), strict=True)
        ]
        before = self.shared_prefix.width if self.shared_prefix else 0
        return Past(layers, joined([block.positions[0] for block in blocks], 0), self.position - before)

    def write(self, state: Tensor, logits: Tensor) -> bool:
        """Write the next token, of the state [H] and the logits [V] before it. Returns whether the answer goes on."""
        answer, result = self.answer, None
        try:
            check_numbers(state, f"base {answer.prompt.base.name!r}")
            written: Any = torch.tensor([answer.ids], dtype=torch.long, device=logits.device)
            answer.ids.append(int(self._processors(written, logits[None]).argmax()))
            if self._streamer is not None:
                self._streamer.put(torch.tensor(answer.ids[-1:]))
            if self._has_ended():
                if self._streamer is not None:
                    self._streamer.end()
                whole = answer_of(answer.ids, {*self._form.ends}, self._tokenizer, self._form.stops)
                result = self._form.outcome(answer.example, whole)
        except Exception as error:  # of this answer alone: those beside it go on
            answer.on_done(error)
            return False
        if result is not None:
            answer.on_done(result)
        return result is None

    def _has_ended(self) -> bool:
        ids = self.answer.ids
        if ids[-1] in self._form.ends or len(ids) >= self._longest:
            return True
        return self._stops is not None and bool(self._stops(torch.tensor([ids]), None)[0])


class _Group:
    """Rows that run in one forward: through the same weights, and behind the same text if that is long.

    As long as the same rows run, their contexts stay in one padded grid, and what they write grows behind it. When a row
    has joined or left, each row's keys and values are put together and laid out anew.

    Attributes:
        rows: those whose answers go on.
    """

    def __init__(self, live: Base) -> None:
        self._live = live
        self.rows: list[_Row] = []
        self._new: dict[_Row, Past] = {}  # of rows that are not laid out yet
        self._laid_out: list[_Row] = []
        self._shared: list[Block] = []  # what stands in front of the rows, if anything does
        self._own: list[Block] = []  # what each of them had by itself when they were laid out
        self._written: list[Tensor] = []  # per layer [2, B, G, n, D]; empty before the first step

    def begin(self, answers: Sequence[WrittenAnswer]) -> None:
        """Run contexts in one batch, and write the first token of each; those whose answers go on join the rows."""
        first = answers[0].prompt
        try:
            rows = [answer.prompt.row(answer.example) for answer in answers]
            batch = run(first.base, rows, first.kept, True, first.live)
            logits = batch.base.logits(batch.last)
            begun = [_Row(*pair) for pair in zip(answers, rows, strict=True)]
        except Exception as error:
            if len(answers) == 1:
                answers[0].on_done(error)
                return
            for answer in answers:  # each by itself: it concerns one of them, or the batch is too large
                self.begin([answer])
            return
        going = _goes_on(begun, batch.last, logits)
        # what stands in front of any of these rows comes first
        own = 1 if any(row.shared_prefix is not None for row in rows) else 0
        places = {row: torch.tensor([place], device=batch.states.device) for place, row in enumerate(begun)}
        try:
            pasts = {row: row.past(context_blocks(batch, places[row])[own:]) for row in going}
        except Exception as error:  # such as memory that has run out
            for row in going:
                row.answer.on_done(error)
            return
        self._new.update(pasts)
        self.rows = [*self.rows, *going]

    def step(self) -> None:
        """Write one token of every row; those that have ended leave."""
        self.rows = [row for row in self.rows if not row.answer.cancelled]
        if not self.rows:
            return
        try:
            states = self._run()
            logits = self._live.logits(states)
        except Exception as error:  # such as memory that has run out
            ended, self.rows = self.rows, []
            for row in ended:
                row.answer.on_done(error)
            return
        self.rows = _goes_on(self.rows, states, logits)

    def _run(self) -> Tensor:
        """Run the last token of every row behind all before it; last hidden states [B, H]."""
        if self._new or self.rows != self._laid_out:
            self._lay_out()
        device = self._live.device
        tokens = torch.tensor([row.answer.ids[-1] for row in self.rows], device=device)
        starts = torch.tensor([row.position for row in self.rows], device=device)
        blocks = [*self._shared, *self._own, *self._since(starts)]
        hidden = self._live.forward(self._live.embed(tokens), [1] * len(tokens), starts, blocks, record=True)
        assert hidden.kv is not None
        if self._written:
            self._written = [torch.cat(pair, dim=3) for pair in zip(self._written, hidden.kv, strict=True)]
        else:
            self._written = hidden.kv
        return hidden.states

    def _since(self, positions: Tensor) -> list[Block]:
        """What the rows that are laid out have written since, up to before these positions [B]."""
        if not self._written:
            return []
        count = self._written[0].shape[3]
        return [Block(self._written, positions[:, None] + torch.arange(-count, 0, device=positions.device))]

    def _lay_out(self) -> None:
        device = self._live.device
        before = [*self._own, *self._since(torch.tensor([row.position for row in self._laid_out], device=device))]
        places = {row: torch.tensor([place], device=device) for place, row in enumerate(self._laid_out)}
        pasts = [
            self._new[row] if row in self._new else row.past([select_rows(block, places[row]) for block in before])
            for row in self.rows
        ]
        del before
        self._new, self._own, self._written, self._laid_out = {}, [], [], self.rows  # freed before the new grid is made
        self._own = [block for block in [block_of(pasts)] if block is not None]
        self._shared = [block for block in [block_of([row.shared_prefix for row in self.rows])] if block is not None]


def _goes_on(rows: Sequence[_Row], states: Tensor, logits: Tensor) -> list[_Row]:
    """Write the next token of each row; those whose answers have not ended with it."""
    return [row for row, *numbers in zip(rows, states, logits, strict=True) if row.write(*numbers)]
