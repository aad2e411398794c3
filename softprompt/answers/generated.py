"""Answers that are written: generated behind each row's context, and how likely the right ones are."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from ..base import Base
from ..engine import Answer, BatchOutput, Engine, Learned, before_stops, buckets, generate, run, stops_in, text_of
from ..errors import ConfigError
from ..tasks import BoundTask, Task
from ..tasks.generation import Generation
from ..template import answer_frame
from ..types import Example, Ids, Progress, ignore_progress
from ..values import is_blank
from .form import AnswerForm, Compiled, Prompt, frozen_learned
from .outcome import LIKELIHOOD, Outcome

if TYPE_CHECKING:
    from transformers.generation.streamers import BaseStreamer

_ANSWER_TOKENS = 1024  # scored in one forward: each has a row of V logits
_TOO_LONG = "raise generation.max_new_tokens: longer answers are never finished"


class Generated(AnswerForm[Generation]):
    """A text that the base writes behind the row, token by token.

    Attributes:
        ends: tokens that end an answer; the first of them is learned at the end of each.
        stops: texts that end one.
    """

    mixes = True

    def __init__(self, bound: BoundTask, headed: bool = False) -> None:
        super().__init__(bound, headed)
        prompter, spec = bound.prompter, self.task.spec
        self.ends: Ids = prompter.ends
        self.stops: tuple[str, ...] = (*spec.generation.stop, *prompter.end_texts)
        framed = answer_frame(spec.template) if self.task.rules > 1 else ("", "")
        self._frame = tuple(side.strip() for side in framed)

    @classmethod
    def head_size(cls, task: Task) -> int:
        """A head writes nothing."""
        return 0

    @classmethod
    def check(cls, base: Base, task: Task) -> None:
        """The base must be able to write."""
        if not base.generates:
            raise ConfigError(
                f"task {task.name!r} (type {task.spec.type!r}) writes its answers, which base {base.name!r} ({base.kind}) "
                "cannot; use a causal base such as smollm2, a sequence-to-sequence base, or type classification or choice. "
                "With type span, method.head: true works too"
            )

    def encode(self, values: dict[str, Any], where: str = "row", most: int | None = None) -> Example:
        """A row with its right answer, if it has one; the text leaves room for the longest that may be written.

        Args:
            most: tokens of that; None: as the task says.
        """
        words, gold = self.task.candidates(values)
        candidates = tuple(map(self.answer, words))
        limit = self.task.longest_answer if most is None else most
        longest = max([limit, *map(len, candidates)])
        text, holes, truncated = self.bound.fitted(values, where, longest, f"generation.max_new_tokens ({limit})")
        return Example(text, candidates, gold, where, values, truncated, holes=holes)

    def answer(self, word: str) -> Ids:
        """Ids of an answer and of the token that ends it."""
        return (*self.bound.answer(word), *self.ends[:1])

    def spoken(self, ids: Ids) -> Ids:
        """An answer's ids without the token that ends it."""
        return ids[: len(ids) - len(self.ends[:1])]

    def read(self, ids: Ids, ended: bool = False, more: bool = False) -> str:
        """What was written behind a row, as its answer: up to the first text that ends it, without the space around it.

        Args:
            ended: it was not cut at `max_new_tokens`; what was may end inside a character, which is left out.
            more: what follows is not known yet, so what may be the beginning of a text that ends it is left out, too.
        """
        text = before_stops(text_of(self.bound.prompter.tokenizer, ids), self.stops)
        if more:
            sizes = [size for stop in self.stops for size in range(1, len(stop)) if text.endswith(stop[:size])]
            text = text[: len(text) - max(sizes, default=0)]
        text = (text if ended else text.rstrip("\ufffd")).strip()
        return self._bare(text, more)

    def stops_in(self, ids: Ids) -> bool:
        """Whether a text that ends an answer stands in what was written."""
        return stops_in(text_of(self.bound.prompter.tokenizer, ids), self.stops)

    def stopped_at(self, stops: Sequence[str]) -> Generated:
        """The same form, whose answers end at these texts in place of the task's own; the end of a turn ends them, too."""
        other = copy.copy(self)
        other.stops = (*stops, *self.bound.prompter.end_texts)
        return other

    def _bare(self, text: str, more: bool) -> str:
        """An answer without what the template puts around it, as far as that was written."""
        before, behind = self._frame
        if before and more and before.startswith(text):
            return ""
        text = text.removeprefix(before).lstrip() if before else text
        if behind and more:
            begun = max((size for size in range(1, len(behind) + 1) if text.endswith(behind[:size])), default=0)
            text = text[: len(text) - begun]
        return text.removesuffix(behind).rstrip() if behind else text

    def predict(
        self, prompt: Prompt, rows: Sequence[Example], progress: Progress = ignore_progress, quick: bool = False
    ) -> list[Outcome]:
        """What is written behind every row, and how likely its right answer is.

        Args:
            quick: write nothing.
        """
        learned = frozen_learned(prompt.method)
        nothing = [Answer((), True)] * len(rows)
        answers = nothing if quick else self._written(prompt.engine, rows, learned, progress)
        known = [example for example in rows if example.gold is not None]
        losses = iter(likelihoods(prompt.engine, known, learned, progress))
        return [
            self.outcome(example, answer, None if example.gold is None else next(losses))
            for example, answer in zip(rows, answers, strict=True)
        ]

    def quick_metric(self) -> str:
        """The mean log-likelihood of the right answers' tokens."""
        return LIKELIHOOD

    @torch.no_grad()
    def _written(
        self,
        engine: Engine,
        rows: Sequence[Example],
        learned: Learned,
        progress: Progress = ignore_progress,
        streamer: BaseStreamer | None = None,
    ) -> list[Answer]:
        """The answers that are written behind the rows, in their order."""
        answers: dict[int, Answer] = {}
        for indices, batch in engine.contexts(rows, learned, open_ended=True):
            some = [rows[index] for index in indices]
            answers.update(zip(indices, self._write(batch, some, [self] * len(some), streamer), strict=True))
            progress("writing answers", len(answers), len(rows))
        return [answers[index] for index in range(len(rows))]

    def _write(
        self,
        batch: BatchOutput,
        rows: Sequence[Example],
        forms: Sequence[Generated],
        streamer: BaseStreamer | None = None,
    ) -> list[Answer]:
        """The answers behind contexts that have run; all of these forms have the same settings, ends and stops."""
        seeds = [seed_of(form.task.spec.generation.seed, example) for form, example in zip(forms, rows, strict=True)]
        settings, tokenizer = self.task.spec.generation.settings(), self.bound.prompter.tokenizer
        return generate(batch, tokenizer, self.ends, settings, self.stops, seeds, streamer)

    def outcome(self, example: Example, answer: Answer, nll: float | None = None) -> Outcome:
        """What was written behind one row."""
        return Outcome(
            example.where,
            self.task.gold(example.values),
            self.read(answer.ids, answer.ended),
            nll=nll,
            weight=1 if nll is None else len(example.answer),
            cut=not answer.ended,
            tokens=0 if example.gold is None else len(self.spoken(example.answer)),
        )

    def together(self, prompt: Compiled) -> Hashable:
        """Rows that run through the same weights and are written alike."""
        if not prompt.base.mixes_prompts:
            return id(prompt)
        how = json.dumps([self.task.spec.generation.settings(), self.ends, self.stops])
        return "generated", id(prompt.live.model), how

    @torch.no_grad()
    def serve(
        self, rows: Sequence[Example], prompts: Sequence[Compiled], streamer: BaseStreamer | None = None
    ) -> list[Outcome]:
        """What is written behind each row of one batch.

        Args:
            streamer: called with every token of one row as it comes.
        """
        first = prompts[0]
        forms: list[Generated] = [prompt.form for prompt in prompts]  # type: ignore[misc]  # by the same `together`
        if first.base.mixes_prompts:
            engine_rows = [prompt.row(example) for example, prompt in zip(rows, prompts, strict=True)]
            batch = run(first.base, engine_rows, first.kept, True, first.live)
            answers = self._write(batch, rows, forms, streamer)
        else:
            answers = self._written(first.engine, rows, first.method.learned(), streamer=streamer)
        return [form.outcome(*pair) for form, pair in zip(forms, zip(rows, answers, strict=True), strict=True)]

    def stream(self, prompt: Compiled, row: Example, tell: Callable[[str], object]) -> Outcome:
        """Answer one row and pass on its text as it is generated, in whole characters."""
        from .streaming import AnswerStreamer  # transformers' streamers bring much along

        return self.serve([row], [prompt], AnswerStreamer(self, tell))[0]

    @property
    def unstreamable(self) -> str:
        """Beams are compared before one of them is shown."""
        if self.task.spec.generation.num_beams > 1:
            return "compares beams, so its text is known only at the end; use predict, or set num_beams: 1"
        return ""

    def remarks(self, rows: Sequence[Example]) -> list[tuple[str, str]]:
        """Right answers that cannot be written within the limit."""
        lengths = [len(self.spoken(row.answer)) for row in rows if row.gold is not None]
        what = _too_long(lengths, self.task.longest_answer)
        return [(what, _TOO_LONG)] if what else []

    def notices(self, texts: Sequence[str], cut: Sequence[bool], tokens: Sequence[int] = ()) -> list[str]:
        """Answers that did not fit into `max_new_tokens`, right ones that cannot, and those that say nothing."""
        limit = self.task.longest_answer
        return [line for line in (_too_long(tokens, limit), _cut_short(cut, limit), _silent(texts)) if line]


def _too_long(lengths: Sequence[int], limit: int) -> str:
    """How many right answers of so many tokens cannot be written in `limit` of them, in one line; empty if all can."""
    longer = sum(length > limit for length in lengths)
    if not longer:
        return ""
    return (
        f"{longer} of {len(lengths)} right answers are longer than generation.max_new_tokens {limit} "
        f"(longest {max(lengths)} tokens)"
    )


def _silent(texts: Sequence[str]) -> str:
    """How many written answers say nothing, in one line; empty if all do."""
    if not (count := sum(map(is_blank, texts))):
        return ""
    return f"{count} of {len(texts)} written answers are empty: an end, or a text of generation.stop, came first"


def _cut_short(cut: Sequence[bool], limit: int) -> str:
    """How many written answers had not ended after `limit` tokens, in one line; empty if all had."""
    if not any(cut):
        return ""
    return f"{sum(cut)} of {len(cut)} written answers were cut at generation.max_new_tokens {limit}"


def seed_of(seed: int, example: Example) -> int:
    """Seed of a row's draws: a function of the task's seed and of what the model reads of the row, not of other
    rows."""
    digest = hashlib.sha256(repr((seed, example.text)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@torch.no_grad()
def likelihoods(
    engine: Engine, examples: Sequence[Example], learned: Learned, progress: Progress = ignore_progress
) -> list[float]:
    """−log-likelihood of each example's right answer, summed over its tokens."""
    values: dict[int, float] = {}
    for indices in _parts(examples):
        rows = [examples[index] for index in indices]
        logits, targets = engine.answers(rows, learned)
        losses = F.cross_entropy(logits, targets, reduction="none").split([len(row.answer) for row in rows])
        values.update((index, float(loss.sum())) for index, loss in zip(indices, losses, strict=True))
        progress("evaluating", len(values), len(examples))
    return [values[index] for index in range(len(examples))]


def _parts(examples: Sequence[Example]) -> Iterator[list[int]]:
    """Examples of like length, few enough for one forward and for its logits."""
    for bucket in buckets([len(example.text) + len(example.answer) for example in examples]):
        part: list[int] = []
        tokens = 0
        for index in bucket:
            mine = len(examples[index].answer)
            if part and tokens + mine > _ANSWER_TOKENS:
                yield part
                part, tokens = [], 0
            part.append(index)
            tokens += mine
        yield part
