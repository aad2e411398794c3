"""TensorBoard: event files in the run's folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .base import Ending, Settings, Tracker

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Tracker):
    """Event files in `tensorboard/` of the run's folder, or in `TENSORBOARD_LOGGING_DIR`; else in `runs/`, as torch does."""

    _writer: SummaryWriter | None = None
    _purge_from: int | None = None

    def open(self, settings: Settings, known: str | None) -> str:
        self._settings, self._totals = dict(settings), dict[str, float]()
        beside = str(self.folder / "tensorboard") if self.folder else None
        self._log_dir = os.environ.get("TENSORBOARD_LOGGING_DIR") or beside
        if settings:  # a run that begins hides what another one has left there
            self._purge_from = 0
        return self._log_dir or ""

    def resume(self, step: int) -> None:
        self._purge_from = step + 1

    def log(self, values: Mapping[str, float], step: int) -> None:
        writer = self._opened()
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    def summarize(self, values: Mapping[str, float], step: int) -> None:
        self.log(values, step)
        self._totals |= values

    def close(self, ending: Ending) -> None:
        if self._settings and self._totals:
            self._opened().add_hparams(self._settings, self._totals, run_name=".")
        if self._writer is not None:
            self._writer.close()

    def _opened(self) -> SummaryWriter:
        """The writer, made when the step is known from which on earlier events are hidden."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self._log_dir, purge_step=self._purge_from)
        return self._writer
