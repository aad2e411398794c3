"""Which learning rates a contender tries."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from softprompt import registry
from softprompt.answers import find_form
from softprompt.benchmarks.compare.suite import ContenderSpec, SearchSpec
from softprompt.methods import make_method


def rates_of(row: ContenderSpec, search: SearchSpec, task: Mapping[str, Any]) -> tuple[float, ...]:
    """The learning rates to try on a task; none where nothing is learned by gradients."""
    if row.default_lr is None:
        return ()
    if row.lr:
        return tuple(row.lr)
    default = row.default_lr * _times(row, task)
    powers = [place - search.trials // 2 for place in range(search.trials)]
    if search.draw == "grid":
        return tuple(float(f"{default * search.spread**power:.3g}") for power in powers)
    rng = random.Random(f"{search.seed} {row.name}")
    low, high = (math.log(search.spread) * power for power in (powers[0], powers[-1]))
    return tuple(float(f"{default * math.exp(rng.uniform(low, high)):.3g}") for _ in powers)


def _times(row: ContenderSpec, task: Mapping[str, Any]) -> float:
    """What a method's own rate is multiplied by where only a head answers; a head alone has a rate of its own."""
    if row.kind != "method" or not make_method(row.method).defaults.lr:
        return 1.0
    form = find_form(registry.find("softprompt.tasks", task.get("type", "classification")).form)
    return form.rate if form.needs_head else 1.0
