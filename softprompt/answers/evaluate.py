"""From labelled rows to the task's metric."""

from __future__ import annotations

from collections.abc import Sequence

from ..control import Control
from ..types import Example
from .form import Prompt
from .outcome import Evaluation, summarize


def evaluate(prompt: Prompt, rows: Sequence[Example], control: Control | None = None) -> Evaluation:
    """The task's metric over labelled rows. Each of several processes answers its shard, and all get the whole.

    Raises:
        DataError: no rows, or a row without a label.
    """
    return _evaluated(prompt, rows, control or Control(), quick=False)


def evaluate_quickly(prompt: Prompt, rows: Sequence[Example], control: Control | None = None) -> Evaluation:
    """The same without generating: the right answers' likelihood is measured instead, in about one forward."""
    return _evaluated(prompt, rows, control or Control(), quick=True)


def _evaluated(prompt: Prompt, rows: Sequence[Example], control: Control, quick: bool) -> Evaluation:
    form = prompt.form
    mine = control.parallel.shard(rows)
    outcomes = control.parallel.gather(form.predict(prompt, mine, control.progress, quick))
    return summarize(form.quick_metric() if quick else form.task.spec.metric, outcomes)
