"""Encode once: segments, plan, row cache, and the one forward that training, evaluation and serving share."""

from .bidirectional import BothWays
from .cache import CacheConfig
from .decode import generate
from .encode import parts
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
    "generate",
    "join",
    "lay_out",
    "learned_past",
    "parts",
    "plan",
    "run",
    "score",
    "whole_words",
]
