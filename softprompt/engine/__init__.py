"""Encode once: segments, plan, row cache, and the one forward that training, evaluation and serving share."""

from .batch import BatchOutput, answer_states, score
from .bidirectional import BidirectionalEngine
from .cache import CacheConfig, RowCache
from .decode import Answer, generate
from .encode import buckets
from .engine import Engine
from .kinds import make_engine
from .losses import summed_loss
from .past import Past, join, kv_of, learned_past
from .plan import NOTHING, SLOTS, Learned, Plan, Slot, lay_out, plan
from .reading import Reading, TextKey, left_behind, read_texts, take_prefix, text_key
from .rows import EngineRow, run
from .texts import before_stops, stops_in, text_of
from .tree import WordTree, distinct_beginnings
from .windows import in_forwards, token_states

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
    "Reading",
    "RowCache",
    "Slot",
    "TextKey",
    "WordTree",
    "answer_states",
    "before_stops",
    "buckets",
    "distinct_beginnings",
    "generate",
    "in_forwards",
    "join",
    "kv_of",
    "lay_out",
    "learned_past",
    "left_behind",
    "make_engine",
    "plan",
    "read_texts",
    "run",
    "score",
    "stops_in",
    "summed_loss",
    "take_prefix",
    "text_key",
    "text_of",
    "token_states",
]
