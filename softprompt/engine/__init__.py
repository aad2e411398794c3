"""Encode once: segments, plan, row cache, and the one forward that training, evaluation and serving share."""

from .cache import CacheConfig
from .encode import parts
from .engine import Engine
from .past import Past, join, learned_past
from .plan import NOTHING, SLOTS, Learned, Plan, Slot, lay_out, plan
from .rows import Batch, Row, answer_states, run, score

__all__ = [
    "NOTHING",
    "SLOTS",
    "Batch",
    "CacheConfig",
    "Engine",
    "Learned",
    "Past",
    "Plan",
    "Row",
    "Slot",
    "answer_states",
    "join",
    "lay_out",
    "learned_past",
    "parts",
    "plan",
    "run",
    "score",
]
