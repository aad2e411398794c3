"""Compiled prompts, and batches of rows that are answered behind them.

On a causal base rows of different prompts run in one batch. Elsewhere (models that read both ways, or with an encoder) they
run prompt after prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .base import Base
from .engine import CacheConfig, Engine, EngineRow, Past, buckets, make_engine, plan, run
from .engine.rows import Piece
from .evaluate import Outcome, free_outcome, outcome, outcomes
from .methods import Method
from .methods.binding import bind, refuse_unfit
from .scoring import Prior, prior, relative
from .tasks import BoundTask, Task
from .tasks.generation import Generation
from .types import Example, Progress, ignore_progress
from .writing import write_behind, written

if TYPE_CHECKING:
    from transformers.generation.streamers import BaseStreamer


@dataclass(frozen=True)
class Compiled:
    """A prompt ready to serve: its K/V in front of the text, its pieces behind it, what its live tokens run through.

    Attributes:
        writes: how answers are written, where they are; rows that are written alike are written together.
    """

    method: Method
    bound: BoundTask
    engine: Engine
    shared_prefix: Past | None
    middle: Mapping[str, Piece]
    live: Base
    prior: Prior
    writes: str | None

    def row(self, example: Example) -> EngineRow:
        """An example behind it, on a causal base."""
        return self.engine.row(example, self.shared_prefix, self.middle)

    def size(self, example: Example) -> int:
        """Tokens that an example's memory and time go with."""
        front = len(self.bound.head) + len(self.bound.cue) + len(self.bound.tail)
        return self.method.length + front + len(example.text)


def compile_prompt(base: Base, method: Method, task: Task) -> Compiled:
    """Run what stands in front of the text, once. `method` must hold its learned tensors.

    Raises:
        ConfigError: the base cannot do the task.
    """
    refuse_unfit(base, task, method)
    bound = bind(task, base, method)
    bound.reserve(method.positions)
    how = plan(method.segments(bound.slots, len(bound.cue)), bidirectional=base.bidirectional)
    engine = make_engine(base, how, bound.head, bound.cue, CacheConfig(ram=0, disk=0), tail=bound.tail)
    writes = None
    if isinstance(task, Generation) and not method.points:
        writes = json.dumps([task.spec.generation.settings(), bound.ends, bound.stops])
    with torch.no_grad():
        learned = method.learned()
        prefix = engine.shared_prefix(learned)
        before = prior(engine, method, bound, learned) if task.answering == "scored" else None
        return Compiled(
            method,
            bound,
            engine,
            prefix.detach() if prefix else None,
            engine.middle(learned),
            learned.base or base,
            before,
            writes,
        )


@torch.no_grad()
def answer(
    base: Base, examples: Sequence[Example], prompts: Sequence[Compiled], progress: Progress = ignore_progress
) -> list[Outcome]:
    """Run examples, each behind its own prompt, mixed freely in length-sorted batches."""
    found: dict[int, Outcome] = {}
    for part in _parts(base, examples, prompts):
        some, mine = [examples[index] for index in part], [prompts[index] for index in part]
        if mine[0].writes is not None:
            answered = write(base, some, mine)
        elif base.kind != "causal":
            answered = outcomes(mine[0].engine, mine[0].method, mine[0].bound, some)
        else:
            answered = _choose(base, some, mine)
        found.update(zip(part, answered, strict=True))
        progress("answering", len(found), len(examples))
    return [found[index] for index in range(len(examples))]


def _choose(base: Base, examples: Sequence[Example], prompts: Sequence[Compiled]) -> list[Outcome]:
    """The best candidate of each row of one batch."""
    record = any(len(ids) > 1 for example in examples for ids in example.candidates)
    rows = [prompt.row(example) for example, prompt in zip(examples, prompts, strict=True)]
    batch = run(base, rows, None, record, prompts[0].live)
    found: dict[int, Outcome] = {}
    by_prompt: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        by_prompt.setdefault(id(prompt), []).append(place)
    for places in by_prompt.values():
        prompt, some = prompts[places[0]], [examples[place] for place in places]
        before = prompt.prior
        if before is None:
            before = prior(prompt.engine, prompt.method, prompt.bound, prompt.method.learned(), some)
        scores = prompt.method.score(batch.rows(places), [example.candidates for example in some])
        for place, example, values in zip(places, some, scores, strict=True):
            labels = relative(prompt.method, prompt.bound, values, example.candidates, before)
            found[place] = outcome(prompt.bound, example, labels)
    return [found[place] for place in range(len(examples))]


@torch.no_grad()
def write(
    base: Base, examples: Sequence[Example], prompts: Sequence[Compiled], told: BaseStreamer | None = None
) -> list[Outcome]:
    """What is written behind each row of one batch.

    Args:
        told: every token of one example as it comes.
    """
    bound = prompts[0].bound
    if base.kind != "causal":
        answers = written(prompts[0].engine, bound, examples, prompts[0].method.learned(), told=told)
        return [free_outcome(bound, example, answer) for example, answer in zip(examples, answers, strict=True)]
    rows = [prompt.row(example) for example, prompt in zip(examples, prompts, strict=True)]
    batch = run(base, rows, None, True, prompts[0].live)
    answers = write_behind(batch, examples, [prompt.bound for prompt in prompts], told)
    return [
        free_outcome(prompt.bound, example, answer)
        for example, prompt, answer in zip(examples, prompts, answers, strict=True)
    ]


def _parts(base: Base, examples: Sequence[Example], prompts: Sequence[Compiled]) -> Iterator[list[int]]:
    """Indices of the rows of each batch, sorted by length: those that run through the same weights and answer alike."""
    together: dict[tuple[int, str | None], list[int]] = {}
    for index, prompt in enumerate(prompts):
        runs = id(prompt.live.model) if base.kind == "causal" else id(prompt)
        together.setdefault((runs, prompt.writes), []).append(index)
    for some in together.values():
        sizes = [prompts[index].size(examples[index]) for index in some]
        for part in buckets(sizes):
            yield [some[place] for place in part]
