"""Where a run leaves its state and its records, so that kill -9 at any moment costs seconds and changes no bit."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import TrainingError
from ..storage import atomic_file, plain_disk_errors
from ..types import Notice, OnEvent, ignore_event, ignore_notice
from .events import line_of, tell
from .sealed import DamagedError, PickledError, read_state, step_of, write_state
from .state import State

SECONDS = 10.0  # between checkpoints; when one is written changes nothing that is computed
SHARE = 0.05  # of the time, at most, goes into writing them
NEWEST, BEFORE = "checkpoint.pt", "checkpoint.before.pt"  # both safetensors; the first name is that of earlier versions
EVENTS = "events.jsonl"


class NoStore:
    """Keeps records in memory and no state: for runs without a folder.

    Args:
        on_event: given each record.
    """

    def __init__(self, on_event: OnEvent = ignore_event) -> None:
        self.events: list[dict[str, Any]] = []
        self._on_event = on_event

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
        tell(self._on_event, event, values)


class KeptStore(NoStore):
    """A run that has ended: it is asked again, and changes nothing.

    Args:
        missing: splits whose metric is new; recorded in its `events.jsonl`.
        on_event: given the records that are new.
    """

    def __init__(self, folder: Path, state: State, missing: Sequence[str], on_event: OnEvent = ignore_event) -> None:
        super().__init__(on_event)
        self._folder, self._state, self._missing = folder, state, missing

    def load(self) -> State | None:
        """The last state."""
        return self._state

    def log(self, event: str, **values: Any) -> None:
        """Remember the record; keep it if it is a new one."""
        if event == "final" and values["split"] in self._missing:
            append(self._folder / EVENTS, event, values)
            super().log(event, **values)
        else:
            self.events.append({"event": event, **values})


class FolderStore:
    """The last two checkpoints (sealed, see `sealed.py`) and `events.jsonl` (append only) in the run's folder.

    Args:
        run: digest of everything that decides the result.
        state, damaged: what `read_checkpoints` found there.
        on_event: given each record after it was written.

    Records of steps that the checkpoint does not know are dropped: they will be written again.

    Raises:
        SoftpromptError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        run: str,
        state: State | None = None,
        damaged: bool = False,
        on_event: OnEvent = ignore_event,
    ) -> None:
        self.run, self._state, self._damaged, self._on_event = run, state, damaged, on_event
        self._path, self._before, self._events = folder / NEWEST, folder / BEFORE, folder / EVENTS
        self._written, self._cost = time.monotonic(), 0.0
        with plain_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._drop_events_after(state)  # before the first record of this run is written

    def load(self) -> State | None:
        """The state that the folder held when this run began."""
        return self._state

    def due(self, at_once: bool = False) -> bool:
        """Whether some seconds have passed since the last time: more of them where writing takes long."""
        return at_once or time.monotonic() - self._written >= max(SECONDS, self._cost / SHARE)

    def save(self, state: State) -> None:
        """Write the state; the one before is kept as well."""
        began = time.monotonic()
        with atomic_file(self._path) as temporary:
            write_state(temporary, self.run, state)
            if self._path.exists() and not self._damaged:  # what is damaged must not take the place of what is whole
                self._path.replace(self._before)
        self._damaged = False
        self._written = time.monotonic()
        self._cost = self._written - began

    def log(self, event: str, **values: Any) -> None:
        """Append one JSON line."""
        append(self._events, event, values)
        tell(self._on_event, event, values)

    def _drop_events_after(self, state: State | None) -> None:
        if state is None:
            self._events.unlink(missing_ok=True)
            return
        if not self._events.exists():
            return
        kept = _known(self._events.read_bytes().split(b"\n"), state.step, len(state.spikes))
        with atomic_file(self._events) as temporary:
            temporary.write_bytes(b"".join(line + b"\n" for line in kept))


def append(path: Path, event: str, values: dict[str, Any]) -> None:
    """Append a record; half a character, of a path that is no UTF-8, is written as JSON would escape it."""
    with plain_disk_errors(path), path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(line_of(event, values) + "\n")


def read_checkpoints(folder: Path, run: str, notice: Notice = ignore_notice) -> tuple[State | None, bool]:
    """The newest state of a run that is whole, and whether the newest file is not.

    Args:
        notice: called with which checkpoint is damaged and where the run goes on instead.

    Raises:
        TrainingError: the checkpoint belongs to other settings, data or base, or to an earlier version.
        SoftpromptError: it may not be read.
    """
    damaged: list[str] = []
    for path in (folder / NEWEST, folder / BEFORE):
        with plain_disk_errors(path):
            if not path.exists():
                continue
            try:
                found, state = read_state(path)
            except PickledError:
                raise TrainingError(
                    f"{path} is a checkpoint of an earlier version of softprompt; end the run with that version, use another "
                    "--out, or --fresh to start over"
                ) from None
            except DamagedError as error:
                damaged.append(f"{path} is damaged ({error})")
                continue
        if found != run:
            raise TrainingError(
                f"{folder} holds a checkpoint of a run with other settings, data or base; use another --out, or "
                "--fresh to start over"
            )
        if damaged:
            notice(f"warning: {damaged[0]}; going on from step {state.step}")
        return state, bool(damaged)
    if damaged:
        notice(f"warning: {' and '.join(damaged)}; starting from the beginning")
    return None, bool(damaged)


def told_resumed(folder: Path, step: int, steps: int) -> str:
    """That a run goes on from its checkpoint, with the checkpoint's local time, for people.

    Args:
        step: optimizer steps done.
        steps: of the whole run.
    """
    path = next(path for path in (folder / NEWEST, folder / BEFORE) if path.exists())
    written = time.localtime(path.stat().st_mtime)
    is_today = written[:3] == time.localtime()[:3]
    clock = time.strftime("%H:%M" if is_today else "%Y-%m-%d %H:%M", written)
    return f"going on from step {step} of {steps} (checkpoint of {clock})"


def trained_seconds(folder: Path) -> float:
    """Seconds of the steps and dev evaluations in a run's event log; 0 where there is none."""
    path = folder / EVENTS
    with plain_disk_errors(path):
        lines = path.read_bytes().splitlines() if path.exists() else []
    total = 0.0
    for line in lines:
        event = _event_of(line)
        if event is not None and event["event"] in ("step", "dev"):
            seconds = event.get("seconds")
            total += seconds if isinstance(seconds, float) else 0.0
    return total


def _event_of(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None where the line cannot be read, whatever it holds."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _known(lines: Sequence[bytes], step: int, spikes: int) -> list[bytes]:
    """The records that a state at this step knows of, after so many spikes, from each of which the run went back."""
    kept: list[bytes] = []
    for line in lines:
        if (event := _event_of(line)) is None:
            continue
        at = event.get("step", 0)
        if not isinstance(at, int) or event["event"] in ("trained", "final", "end"):
            continue
        if spikes:  # steps before one that the state knows may have higher numbers
            kept.append(line)
            spikes -= event["event"] == "spike"
        elif event["event"] == "spike":
            break
        elif at <= step:
            kept.append(line)
    return kept


def forget(folder: Path, *names: str) -> None:
    """Remove a run's checkpoints (and these files), so that it starts over.

    Raises:
        SoftpromptError: one cannot be removed.
    """
    for name in (NEWEST, BEFORE, *names):
        with plain_disk_errors(folder / name, "remove it by hand, or use another --out"):
            (folder / name).unlink(missing_ok=True)


def goes_on(folder: Path | None) -> str:
    """What becomes of a run that ends now, in words."""
    if folder is None:
        return "a run without a folder keeps nothing"
    steps = [step for path in (folder / NEWEST, folder / BEFORE) if (step := step_of(path)) is not None]
    if not steps:
        return "there is no checkpoint yet, so the same command begins anew"
    return f"the same command goes on from step {steps[0]}"
