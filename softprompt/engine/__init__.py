"""Encode once: segments, plan, row cache, and the one forward that training, evaluation and serving share."""

from .bidirectional import BothWays, make_engine
from .cache import CacheConfig
from .decode import generate
from .encode import buckets
from .engine import Engine
from .past import Past, join, learned_past
from .plan import NOTHING, SLOTS, Learned, Plan, Slot, lay_out, plan
from .pointing import best_span, whole_words
from .rows import Batch, Row, answer_states, run, score

__all__ = [
    "NOTHING",
    "SLOTS",
    "Batch",
    "BothWays",
    "CacheConfig",
    "Engine",
    "Learned",
    "Past",
    "Plan",
    "Row",
    "Slot",
    "answer_states",
    "best_span",
    "buckets",
    "generate",
    "join",
    "lay_out",
    "learned_past",
    "make_engine",
    "plan",
    "run",
    "score",
    "whole_words",
]
