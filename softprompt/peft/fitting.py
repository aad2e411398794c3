"""A configuration of PEFT's and rows in TRL's shapes, to an artifact that PEFT loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftConfig
from typing_extensions import Unpack

from ..base import Base
from ..methods import make_method
from ..runfile import TrainSpec, base_section
from ..training import Result, RunOptions
from ..training import train as run
from .configs import method
from .rows import task_of


def fit(
    config: PeftConfig,
    rows: Any,
    base: Any,
    out: str | Path | None = None,
    *,
    train: TrainSpec | dict[str, Any] | None = None,
    seed: int = 0,
    **options: Unpack[RunOptions],
) -> Result:
    """Train the method of a PEFT configuration, on rows in TRL's formats.

    The loss is the mean over the tokens of completions and the token that ends them. In a conversation the completion
    is its last turn.

    Args:
        config: see `method`.
        rows: `{"prompt", "completion"}`, both texts or both turns, or `{"messages"}`, whose last turn is learned. A
            list of dicts, a DataFrame or a `datasets.Dataset`, all of it to learn from, or a mapping from split
            (`train`, `dev`, `test`) to such rows.
        base: a bundled name, a folder, a hub id, a `base` section as in a run file, or a loaded `Base`.
        out: folder of the run; its `artifact/` is what `PeftModel.from_pretrained` loads. None keeps everything in memory;
            `Result.save` writes it then.
        train: settings as in a run file; null ones are filled by our method's defaults, not by TRL's.
        options: see `RunOptions`.

    Raises:
        SoftpromptError: a field of the configuration is not supported (the message names it and its value), rows of
            another format, and what `softprompt.train` raises.
    """
    base = _base(base, options)
    learned = make_method(method(config, base), type(config).__name__)
    task, splits = task_of(rows, base, getattr(config, "alora_invocation_tokens", None) or ())
    return run(base, task, learned, out, train=train, seed=seed, rows=splits, **options)


def _base(given: Any, options: Mapping[str, Any]) -> Base:
    if isinstance(given, Base):
        return given
    spec = base_section(given)
    return spec.load(options["progress"]) if "progress" in options else spec.load()
