"""Training: one loop, its checkpoints, and the run around it."""

from ..prepared import Prepared, prepare
from ..run_reader import load_run
from ..runfile import BaseSpec, CacheSpec, RunSpec, TrainSpec
from .averaging import save_average
from .result import Result
from .run import RunOptions, train
from .saving import save

__all__ = [
    "BaseSpec",
    "CacheSpec",
    "Prepared",
    "Result",
    "RunOptions",
    "RunSpec",
    "TrainSpec",
    "load_run",
    "prepare",
    "save",
    "save_average",
    "train",
]
