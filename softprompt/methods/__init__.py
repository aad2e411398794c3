"""Methods: what is learned and where it enters the row."""

from .base import LearnedTensor, Method, MethodSpec, TrainDefaults, make_method

__all__ = ["LearnedTensor", "Method", "MethodSpec", "TrainDefaults", "make_method"]
