"""What is examined."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..answers import AnswerForm
from ..artifact import Artifact
from ..base import Base
from ..base.check import tolerance
from ..engine import CacheConfig, Engine, Learned, Slot, make_engine
from ..methods import Method
from ..prepared import Prepared
from ..tasks import BoundTask
from ..types import Example

TOGETHER = 4  # rows of one forward


@dataclass(frozen=True)
class Case:
    """A prepared run with its method attached, or restored from an artifact.

    Attributes:
        rows: labelled rows that the checks run.
        held: the artifact; None before training.
        made_up: the rows are made up, because the data is not at hand.
        full: also do what takes minutes.
    """

    ready: Prepared
    rows: list[Example]
    held: Artifact | None = None
    made_up: bool = False
    full: bool = False

    @property
    def base(self) -> Base:
        """The frozen base."""
        return self.ready.base

    @property
    def bound(self) -> BoundTask:
        """The task with the base's tokenizer."""
        return self.ready.bound

    @property
    def form(self) -> AnswerForm[Any]:
        """How the rows are answered."""
        return self.ready.form

    @property
    def method(self) -> Method:
        """What is examined."""
        return self.ready.method

    @cached_property
    def engine(self) -> Engine:
        """An engine of its own by the run's plan, its rows kept as the run would keep them: the run's own stays as it is."""
        like = self.ready.engine
        config = CacheConfig(like.config.dtype)
        engine = make_engine(
            self.base, like.plan, like.prefix_ids, like.cue, config, (), self.learned, like.tail, like.question
        )
        engine.encode(self.rows)
        return engine

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The row's slots, in order."""
        how = self.ready.engine.plan
        return (*how.shared_frozen, *how.shared_live, *how.row_frozen, *how.row_live)

    @cached_property
    def learned(self) -> Learned:
        """What the method brings, without gradients."""
        with torch.no_grad():
            found = self.method.learned()
        return replace(found, segments={name: value.detach() for name, value in found.segments.items()})

    @torch.no_grad()
    def logits(self, learned: Learned, together: int = TOGETHER) -> Tensor:
        """Logits [A, V] that predict the rows' answers, a few rows at a time."""
        parts = [self.form.logits(self.engine, part, learned)[0].float() for part in chunks(self.rows, together)]
        return torch.cat(parts)

    def allowed(self, logits: Tensor) -> float:
        """How far two computations of the same logits may differ, by the coarsest number type involved."""
        types = [self.base.dtype, self.base.autocast or self.base.dtype, self.engine.cache.dtype]
        return max(tolerance(dtype, logits) for dtype in types)

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text, quoted, so that it stays one line."""
        return repr(self.base.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def sample(examples: Sequence[Example], count: int, short: bool = False) -> list[Example]:
    """Labelled rows, drawn at random (always the same) from all of them.

    Args:
        short: the shortest of four times as many.
    """
    usable = [example for example in examples if example.gold is not None and example.text]
    wide = min(len(usable), count * (4 if short else 1))
    drawn = [usable[place] for place in sorted(random.Random(0).sample(range(len(usable)), wide))]
    return sorted(drawn, key=lambda example: len(example.text))[:count] if short else drawn


def chunks(rows: Sequence[Example], size: int = TOGETHER) -> list[Sequence[Example]]:
    """A few rows at a time."""
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]


def far(one: Tensor, other: Tensor) -> float:
    """Largest difference; NaN where a number is none."""
    return float((one - other).abs().max())
