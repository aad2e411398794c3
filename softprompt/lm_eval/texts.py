"""Texts behind contexts: how likely given ones are, and what is written. Each context runs once, and so does what many share.

Nothing here knows the harness; tokens come in, numbers and tokens go out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from ..base import Base, check_numbers
from ..engine import (
    Answer,
    BatchOutput,
    Engine,
    EngineRow,
    Learned,
    Past,
    answer_states,
    buckets,
    generate,
    make_engine,
    plan,
    run,
)
from ..engine.encode import TOKENS_PER_FORWARD
from ..engine.rows import Piece
from ..methods import Method
from ..surroundings import plain_torch
from ..types import Example, Ids
from .learned import UNKEPT, slots_of

SCORED_AT_ONCE = 1024  # tokens whose logits are taken together; each has V of them
SHARED = 32  # contexts that begin with the same so many tokens …
SHARERS = 8  # … and are so many have their common beginning run once
SHORT = 8  # a context of fewer tokens is run again for each of its continuations


@dataclass(frozen=True)
class Likelihood:
    """Of a continuation: Σ log p(token | all before it) in nats, and whether each of its tokens is the most likely one."""

    value: float
    greedy: bool


@dataclass(frozen=True)
class Asked:
    """A context and what is asked of it: one continuation, which runs in the same row, or several behind it."""

    context: Ids
    continuations: tuple[Ids, ...]

    @property
    def follows(self) -> Ids:
        """What of a single continuation runs with the context: all but its last token."""
        return self.continuations[0][:-1] if len(self.continuations) == 1 else ()


@dataclass(frozen=True)
class Front:
    """What stands before some of the contexts, once it has run.

    Attributes:
        shared: tokens with which all of these contexts begin.
    """

    engine: Engine
    shared: Ids
    prefix: Past | None
    middle: Mapping[str, Piece]
    cuts: tuple[int, ...]
    cue: int

    def row(self, context: Ids, follows: Ids = ()) -> EngineRow:
        """A context behind it, as a row for the engine."""
        own = context[len(self.shared) :]
        holes = tuple(max(0, len(own) - self.cue + cut) for cut in self.cuts)
        return self.engine.row(Example(own, (), None, "a request", {}, holes=holes), self.prefix, self.middle, follows)


class Texts:
    """A base, with what a method learned, over texts of somebody else's.

    Args:
        cue: how many of a context's last tokens play the cue of the method's template.
        most: contexts that run together at most; None: as many as make a good forward.

    Attributes:
        limit: tokens of a context and what is read behind it, together.

    Raises:
        ConfigError: what was learned has no place without its template.
    """

    def __init__(self, base: Base, method: Method, cue: int = 0, most: int | None = None) -> None:
        self.base, self.most, self.cue = base, most, cue
        slots, self._cuts = slots_of(method, cue)
        self._plan = plan(slots)
        self.limit = base.max_positions - method.positions
        with torch.no_grad():
            self._learned: Learned = method.learned()

    def likelihoods(self, pairs: Sequence[tuple[Ids, Ids]]) -> Iterator[tuple[int, Likelihood]]:
        """How likely each continuation is behind its context, with its place among the pairs, in the order of the forwards.

        Args:
            pairs: contexts and continuations of at least one token each, no more than `limit` + 1 together (the last does not
                run).
        """
        places: dict[Ids, dict[Ids, list[int]]] = {}
        for place, (context, continuation) in enumerate(pairs):
            places.setdefault(context, {}).setdefault(continuation, []).append(place)
        asked: list[Asked] = []
        for context, own in places.items():
            together = len(context) >= SHORT
            asked += [Asked(context, tuple(own))] if together else [Asked(context, (ids,)) for ids in own]
        for several in (False, True):
            some = [one for one in asked if (len(one.continuations) > 1) == several]
            for front, part in self._parts([one.context for one in some], [len(one.follows) for one in some]):
                mine = [some[index] for index in part]
                for one, ids, value in self._scored(front, mine):
                    yield from ((place, value) for place in places[one.context][ids])

    def _scored(self, front: Front, asked: Sequence[Asked]) -> Iterator[tuple[Asked, Ids, Likelihood]]:
        """All continuations of contexts that run together."""
        with plain_torch(), torch.no_grad():
            record = any(len(one.continuations) > 1 and max(map(len, one.continuations)) > 1 for one in asked)
            batch = self._run(front, [front.row(one.context, one.follows) for one in asked], record)
            flat = [(row, one, ids) for row, one in enumerate(asked) for ids in one.continuations]
            if all(len(one.continuations) == 1 for one in asked):
                ends = batch.ends.tolist()
                states = [batch.states[ends[row] - len(ids) : ends[row]] for row, _, ids in flat]
                found = _likelihoods(batch.base, states, [ids for _, _, ids in flat])
            else:
                found = []
                for part in _bounded(flat):
                    states = answer_states(batch, [ids for _, _, ids in part], [row for row, _, _ in part])
                    found += _likelihoods(batch.base, states, [ids for _, _, ids in part])
        yield from ((one, ids, value) for (_, one, ids), value in zip(flat, found, strict=True))

    def written(
        self,
        contexts: Sequence[Ids],
        settings: dict[str, Any],
        ends: Sequence[int],
        stops: Sequence[str],
        seeds: Sequence[int],
    ) -> Iterator[tuple[int, Answer]]:
        """What is written behind each context, with its place, in the order in which it is known.

        Args:
            settings, ends, stops, seeds: see `engine.generate`.
        """
        for front, part in self._parts(contexts):
            with plain_torch(), torch.no_grad():
                batch = self._run(front, [front.row(contexts[place]) for place in part], True)
                own = [seeds[place] for place in part]
                answers = generate(batch, self.base.tokenizer, ends, settings, stops, own)
            yield from zip(part, answers, strict=True)

    def _run(self, front: Front, rows: Sequence[EngineRow], record: bool) -> BatchOutput:
        batch = run(self.base, rows, None, record, self._learned.base)
        check_numbers(batch.last, f"base {self.base.name!r}")
        return batch

    def _front(self, shared: Ids) -> Front:
        with plain_torch(), torch.no_grad():
            engine = make_engine(self.base, self._plan, shared, (), UNKEPT)
            prefix, middle = engine.shared_prefix(self._learned), engine.middle(self._learned)
        return Front(engine, shared, prefix, middle, self._cuts, self.cue)

    def _parts(self, contexts: Sequence[Ids], more: Sequence[int] = ()) -> Iterator[tuple[Front, list[int]]]:
        """Places of contexts that run together, shortest first, behind what they share.

        Args:
            more: tokens that run behind each context in its row.
        """
        for shared, places in alike(contexts, max(1, self.cue)):
            front = self._front(shared)
            behind = [0 if not more else more[place] for place in places]
            before = front.prefix.size if front.prefix else 0
            sizes = [
                before + len(contexts[place]) - len(shared) + rest for place, rest in zip(places, behind, strict=True)
            ]
            for bucket in buckets(sizes):
                step = self.most or len(bucket)
                for begin in range(0, len(bucket), step):
                    yield front, [places[index] for index in bucket[begin : begin + step]]


def alike(contexts: Sequence[Ids], least: int) -> list[tuple[Ids, list[int]]]:
    """Contexts by what many of them begin with (instructions, fixed examples): that, and their places.

    Args:
        least: tokens that each context keeps for itself.
    """
    begun: dict[Ids, list[int]] = {}
    for place, ids in enumerate(contexts):
        begun.setdefault(ids[:SHARED], []).append(place)
    found: list[tuple[Ids, list[int]]] = []
    rest: list[int] = []
    for places in begun.values():
        some = [contexts[place] for place in places]
        shared = _beginning(some)[: max(0, min(map(len, some)) - least)]
        if len(shared) >= SHARED and len(places) >= SHARERS:
            found.append((shared, places))
        else:
            rest += places
    return [*found, ((), sorted(rest))] if rest else found


def _beginning(some: Sequence[Ids]) -> Ids:
    """The tokens with which all of these begin: the first and the last in order differ where any do."""
    pairs = zip(min(some), max(some), strict=False)
    return tuple(token for token, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _bounded(flat: Iterable[tuple[int, Asked, Ids]]) -> Iterator[list[tuple[int, Asked, Ids]]]:
    """Continuations of no more tokens than a forward should have."""
    part: list[tuple[int, Asked, Ids]] = []
    tokens = 0
    for one in flat:
        if part and tokens + len(one[2]) > TOKENS_PER_FORWARD:
            yield part
            part, tokens = [], 0
        part.append(one)
        tokens += len(one[2])
    if part:
        yield part


def _likelihoods(base: Base, states: Sequence[Tensor], continuations: Sequence[Ids]) -> list[Likelihood]:
    """Of continuations, from the states [tokens, H] that predict each one's tokens."""
    every = torch.cat(list(states))
    targets = torch.tensor([token for ids in continuations for token in ids], device=every.device)
    values, best = [], []
    for begin in range(0, len(every), SCORED_AT_ONCE):
        logits = base.logits(every[begin : begin + SCORED_AT_ONCE]).float()
        wanted = targets[begin : begin + SCORED_AT_ONCE]
        values.append((logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(-1)).double())
        best.append(logits.argmax(-1) == wanted)
    sizes = [len(ids) for ids in continuations]
    pairs = zip(torch.cat(values).split(sizes), torch.cat(best).split(sizes), strict=True)
    return [Likelihood(float(value.sum()), bool(greedy.all())) for value, greedy in pairs]
