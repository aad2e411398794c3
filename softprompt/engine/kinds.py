"""Which engine runs which kind of base."""

from __future__ import annotations

from collections.abc import Sequence

from ..base import Base
from ..types import Ids
from .bidirectional import BidirectionalEngine
from .cache import CacheConfig
from .encoder_decoder import EncoderDecoderEngine
from .engine import Engine
from .plan import NOTHING, Learned, Plan


def make_engine(
    base: Base,
    plan: Plan,
    prefix_ids: Ids,
    cue: Ids,
    cache: CacheConfig | None = None,
    reuse: Sequence[Engine] = (),
    start: Learned = NOTHING,
    tail: Ids = (),
    question: Ids = (),
) -> Engine:
    """The engine for a base's kind; see `Engine`."""
    kind = EncoderDecoderEngine if base.has_decoder else BidirectionalEngine if base.bidirectional else Engine
    return kind(base, plan, prefix_ids, cue, cache, reuse, start, tail, question)
