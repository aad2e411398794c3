"""Which engine runs which kind of base."""

from __future__ import annotations

from collections.abc import Sequence

from ..base import Base
from ..types import Ids
from .bidirectional import BothWays
from .cache import CacheConfig
from .engine import Engine
from .plan import NOTHING, Learned, Plan
from .two_sides import TwoSides


def make_engine(
    base: Base,
    plan: Plan,
    head: Ids,
    cue: Ids,
    cache: CacheConfig | None = None,
    share: Sequence[Engine] = (),
    start: Learned = NOTHING,
    tail: Ids = (),
) -> Engine:
    """The engine for a base's kind; see `Engine`."""
    kind = TwoSides if base.kind == "seq2seq" else BothWays if base.bidirectional else Engine
    return kind(base, plan, head, cue, cache, share, start, tail)
