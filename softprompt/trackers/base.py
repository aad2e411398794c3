"""The contract of a tracker: what a library that keeps and draws runs is asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Ending = Literal["finished", "failed", "killed"]
Settings = Mapping[str, str | int | float | bool]


class Tracker(ABC):
    """One run in one library.

    Args:
        run_name: what the run is called where the library shows several.
        folder: of the run; None where it has none.
    """

    def __init__(self, run_name: str, folder: Path | None) -> None:
        self.run_name, self.folder = run_name, folder

    @abstractmethod
    def open(self, settings: Settings, known: str | None) -> str:
        """Begin a run, or go on with a known one.

        Args:
            settings: by dotted key (`train.lr`); empty where nothing but further metrics of a finished run will come.
            known: what `open` gave when this run was begun.

        Returns:
            what the library finds the run by.
        """

    @abstractmethod
    def resume(self, step: int) -> None:
        """The run goes on behind this step; later steps that were logged before run, and are logged, again."""

    @abstractmethod
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Metrics of an optimizer step, by name (`train/loss`)."""

    @abstractmethod
    def summarize(self, values: Mapping[str, float], step: int) -> None:
        """Metrics of the whole run, behind its last step."""

    @abstractmethod
    def close(self, ending: Ending) -> None:
        """Write everything that is still buffered, and say how the run ended."""
