"""Artifacts as a model of EleutherAI's lm-evaluation-harness (extra `lm-eval`).

Importing this registers the model `softprompt` with the harness of this process. `python -m softprompt.lm_eval` is the
harness's own command line, with that model in it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError

if TYPE_CHECKING:
    from .model import SoftpromptLM

__all__ = ["SoftpromptLM"]

if find_spec("lm_eval") is not None:
    from .model import SoftpromptLM


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise MissingExtraError("the lm-evaluation-harness is not installed: pip install 'softprompt[lm-eval]'")
