"""Methods: what is learned and where it enters the row."""

from .base import LearnedTensor, Method, MethodSpec, TrainDefaults, make_method
from .headed import Headed, HeadShape

__all__ = ["HeadShape", "Headed", "LearnedTensor", "Method", "MethodSpec", "TrainDefaults", "make_method"]
