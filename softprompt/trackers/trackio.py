"""Trackio: a database on this machine, or a Space of the Hugging Face hub."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping

from .base import Ending, Settings, Tracker


class Trackio(Tracker):
    """A run of the project `TRACKIO_PROJECT` (default: softprompt). `TRACKIO_SPACE_ID` and `TRACKIO_DIR` are Trackio's own."""

    def open(self, settings: Settings, known: str | None) -> str:
        import trackio

        # Trackio finds a run that goes on by its name, so the name must be this run's alone
        name = known or f"{self.run_name}-{uuid.uuid4().hex[:6]}"
        project = os.environ.get("TRACKIO_PROJECT", "softprompt")
        self._run = trackio.init(project=project, name=name, config=dict(settings) or None, resume="allow", embed=False)
        return name

    def resume(self, step: int) -> None:
        """Nothing to do: a step may be logged twice."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def summarize(self, values: Mapping[str, float], step: int) -> None:
        self.log(values, step)

    def close(self, ending: Ending) -> None:
        self._run.finish()
