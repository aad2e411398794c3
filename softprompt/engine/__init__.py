"""Encode once: segments, plan, row cache, and the one forward that training, evaluation and serving share."""

from .batch import BatchOutput, answer_states, score
from .bidirectional import BidirectionalEngine
from .cache import CacheConfig
from .decode import Answer, generate, stops_in, text_of
from .encode import buckets
from .engine import Engine
from .kinds import make_engine
from .past import Past, join, kv_of, learned_past
from .plan import NOTHING, SLOTS, Learned, Plan, Slot, lay_out, plan
from .pointing import best_span, whole_words
from .rows import EngineRow, run

__all__ = [
    "NOTHING",
    "SLOTS",
    "Answer",
    "BatchOutput",
    "BidirectionalEngine",
    "CacheConfig",
    "Engine",
    "EngineRow",
    "Learned",
    "Past",
    "Plan",
    "Slot",
    "answer_states",
    "best_span",
    "buckets",
    "generate",
    "join",
    "kv_of",
    "lay_out",
    "learned_past",
    "make_engine",
    "plan",
    "run",
    "score",
    "stops_in",
    "text_of",
    "whole_words",
]
