"""Training: one loop, its checkpoints, and the run around it."""

from .job import Result
from .preparing import Prepared, prepare
from .run import train
from .saving import save
from .spec import BaseSpec, CacheSpec, RunSpec, TrainSpec, load_run

__all__ = [
    "BaseSpec",
    "CacheSpec",
    "Prepared",
    "Result",
    "RunSpec",
    "TrainSpec",
    "load_run",
    "prepare",
    "save",
    "train",
]
