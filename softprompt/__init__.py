"""softprompt: train small prompts on a frozen model, swap them per task or per request, know how good they are.

    import softprompt as sp

    base = sp.Base.load("smollm2")
    task = sp.Task.load("movie-reviews")
    result = sp.train(base, task, "infix", out="runs/movies")

    runtime = sp.Runtime(base)
    runtime.add("movies", "runs/movies")
    runtime.predict([{"text": "A quiet triumph."}], "movies")

Names are imported when they are first used, so `import softprompt` is instant and loads neither peft nor bitsandbytes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from . import peft as peft
    from .artifact import Artifact, load
    from .base import Base
    from .ensemble import fit_weights, save_ensemble
    from .errors import SoftpromptError
    from .estimators import PromptClassifier, PromptExtractor, PromptGenerator, PromptTagger
    from .exporting import export
    from .methods import Method, make_method
    from .runtime import Runtime
    from .tasks import Task
    from .training import Result, TrainSpec, save_average, train

_WHERE = {
    "Artifact": "artifact",
    "load": "artifact",
    "Base": "base",
    "fit_weights": "ensemble",
    "peft": "peft",
    "save_average": "training",
    "save_ensemble": "ensemble",
    "SoftpromptError": "errors",
    "PromptClassifier": "estimators",
    "PromptExtractor": "estimators",
    "PromptGenerator": "estimators",
    "PromptTagger": "estimators",
    "export": "exporting",
    "Method": "methods",
    "make_method": "methods",
    "Runtime": "runtime",
    "Task": "tasks",
    "Result": "training",
    "TrainSpec": "training",
    "train": "training",
}

__all__ = [
    "Artifact",
    "Base",
    "Method",
    "PromptClassifier",
    "PromptExtractor",
    "PromptGenerator",
    "PromptTagger",
    "Result",
    "Runtime",
    "SoftpromptError",
    "Task",
    "TrainSpec",
    "__version__",
    "export",
    "fit_weights",
    "load",
    "make_method",
    "save_average",
    "save_ensemble",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'softprompt' has no attribute {name!r}")
    module = importlib.import_module(f".{_WHERE[name]}", __name__)
    value = module if name == _WHERE[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_WHERE})
