"""Methods: what is learned and where it enters the row."""

from .base import LearnedTensor, Method, MethodSpec, TrainDefaults, make_method
from .headed import Headed

__all__ = ["Headed", "LearnedTensor", "Method", "MethodSpec", "TrainDefaults", "make_method"]
