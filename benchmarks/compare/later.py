"""Defaults that changed after the first records were made. They are part of what a run is called."""

from __future__ import annotations

from typing import Any

from softprompt.adapters.targets import ALL_LINEAR
from softprompt.benchmarks.compare.suite import ContenderSpec
from softprompt.methods import make_method
from softprompt.training.keeping import ERRORS

_FIRST_WARMUP = 0.06  # of all methods, once


def later_defaults(row: ContenderSpec, train: dict[str, Any]) -> dict[str, Any]:
    """Defaults of a method that results depend on and that records of earlier versions were not made with."""
    if row.kind != "method" or row.default_lr is None:
        return {}
    method = make_method(row.method)
    defaults, parts = method.defaults, (method, *getattr(method, "parts", ()))
    found: dict[str, Any] = {"errors": ERRORS}
    if any(getattr(part.spec, "target_modules", "") is None for part in parts):
        found["target_modules"] = ALL_LINEAR
    if defaults.warmup != _FIRST_WARMUP and "warmup" not in train:
        found["warmup"] = defaults.warmup
    if defaults.min_steps and defaults.least_batch < defaults.batch_size and "epochs" not in train:
        found["min_steps"] = defaults.min_steps
    return found
