"""Where a run leaves its state and its records, so that kill -9 at any moment costs seconds and changes no bit."""

from __future__ import annotations

import json
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from ..errors import TrainingError
from ..storage import atomic_file, plain_disk_errors
from .loop import State

SECONDS = 10.0  # between checkpoints; when one is written changes nothing that is computed
SHARE = 0.05  # of the time, at most, goes into writing them


class NoStore:
    """Keeps records in memory and no state: for runs without a folder."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def load(self) -> State | None:
        """Nothing to resume."""
        return None

    def due(self, at_once: bool = False) -> bool:
        """Never."""
        return False

    def save(self, state: State) -> None:
        """Nothing to keep."""

    def log(self, event: str, **values: Any) -> None:
        """Remember the record."""
        self.events.append({"event": event, **values})


class FolderStore:
    """`checkpoint.pt` (atomic) and `events.jsonl` (append only) in the run's folder.

    Args:
        run: digest of everything that decides the result; a checkpoint of another run is refused.

    Records of steps that the checkpoint does not know are dropped: they will be written again.

    Raises:
        TrainingError: the checkpoint belongs to other settings, data or base, or cannot be read.
        SoftpromptError: the folder cannot be written.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.folder, self.run = folder, run
        self._path, self._events = folder / "checkpoint.pt", folder / "events.jsonl"
        self._written, self._cost = time.monotonic(), 0.0
        with plain_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._state = self._read()  # before the first record is written, as it drops records

    def load(self) -> State | None:
        """The state that the folder held when this run began."""
        return self._state

    def _read(self) -> State | None:
        if not self._path.exists():
            self._events.unlink(missing_ok=True)
            return None
        try:
            held = torch.load(self._path, weights_only=True)
            run, state = held["run"], State(**held["state"])
        except Exception as error:
            raise TrainingError(
                f"{self._path}: cannot be read ({type(error).__name__}); delete it to start again"
            ) from error
        if run != self.run:
            raise TrainingError(
                f"{self.folder} holds a checkpoint of a run with other settings, data or base; take another --out, or "
                "--fresh to start over"
            )
        self._drop_events_after(state.step)
        return state

    def due(self, at_once: bool = False) -> bool:
        """Whether some seconds have passed since the last time: more of them where writing takes long."""
        return at_once or time.monotonic() - self._written >= max(SECONDS, self._cost / SHARE)

    def save(self, state: State) -> None:
        """Write the state."""
        began = time.monotonic()
        names = [item.name for item in fields(state) if item.name != "found"]  # outcomes are found again
        held = {"run": self.run, "state": {name: getattr(state, name) for name in names}}
        # into a file of Python's: given a path, torch's own writer does not say that the disk is full
        with atomic_file(self._path) as temporary, temporary.open("wb") as file:
            torch.save(held, file)
        self._written = time.monotonic()
        self._cost = self._written - began

    def log(self, event: str, **values: Any) -> None:
        """Append one JSON line."""
        line = json.dumps({"event": event, **values}, ensure_ascii=False, default=str)
        with plain_disk_errors(self._events), self._events.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _drop_events_after(self, step: int) -> None:
        if not self._events.exists():
            return
        kept = []
        for line in self._events.read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line that was being written when the process was killed
            if event.get("step", 0) <= step and event["event"] not in ("trained", "final"):
                kept.append(line)
        with atomic_file(self._events) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
