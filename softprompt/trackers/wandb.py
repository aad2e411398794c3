"""Weights & Biases."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping

from .base import Ending, Settings, Tracker

EXIT_CODES: dict[Ending, int] = {"finished": 0, "failed": 1, "killed": 255}  # wandb shows the last as killed
STEP = "train/global_step"  # wandb's own step never goes back, and a run that goes on makes some steps again


class Wandb(Tracker):
    """A run of the project `WANDB_PROJECT` (default: softprompt), or the one that the caller has begun and will end.

    `WANDB_MODE=offline` and `disabled` are wandb's own.
    """

    def open(self, settings: Settings, known: str | None) -> str:
        import wandb

        self._is_ours = wandb.run is None
        self._run = wandb.run or wandb.init(
            project=os.environ.get("WANDB_PROJECT", "softprompt"),
            name=self.run_name,
            id=known or uuid.uuid4().hex[:12],
            resume="allow",
        )
        self._run.config.update(dict(settings), allow_val_change=True)
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)
        return str(self._run.id)

    def resume(self, step: int) -> None:
        """Nothing to do: a step may be logged twice."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, STEP: step})

    def summarize(self, values: Mapping[str, float], step: int) -> None:
        self._run.summary.update(dict(values))

    def close(self, ending: Ending) -> None:
        if self._is_ours:
            self._run.finish(exit_code=EXIT_CODES[ending])
