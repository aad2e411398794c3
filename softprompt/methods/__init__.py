"""Methods: what is learned and where it enters the row."""

from .base import LearnedTensor, Method, MethodSpec, TrainDefaults, make_method
from .contrasted import Contrasted
from .headed import Headed, HeadShape

__all__ = ["Contrasted", "HeadShape", "Headed", "LearnedTensor", "Method", "MethodSpec", "TrainDefaults", "make_method"]
