"""From a run's events to what trackers are asked."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import MissingExtraError, TrainingError
from ..storage import write_json
from ..types import Notice, OnEvent, ignore_event
from .base import Ending, Tracker

KNOWN = "trackers.json"
"""In a run's folder: what each tracker finds the run by, so that a run that goes on goes on there as well."""

TRACKERS = {
    "tensorboard": "TensorBoard",
    "trackio": "Trackio",
    "wandb": "Wandb",
    "mlflow": "MLflow",
}
"""By the names that transformers gives them, which are those of module, library and extra: the class."""


def check_installed(names: Sequence[str]) -> None:
    """
    Raises:
        MissingExtraError: a tracker's library is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(f"train.report_to: {name} is not installed: pip install 'softprompt[{name}]'")


@contextlib.contextmanager
def reporting(names: Sequence[str], folder: Path | None, fresh: bool, notice: Notice) -> Iterator[OnEvent]:
    """Context of a reported run: gives the function to call with its events.

    Args:
        names: of trackers (`TRACKERS`).
        folder: of the run, which must be writable; None where it has none.
        fresh: the run starts over, so it is another run for the trackers.
        notice: called when a tracker fails.
    """
    if not names:
        yield ignore_event
        return
    reporter = Reporter(names, folder, fresh, notice)
    ending: Ending = "failed"
    try:
        yield reporter
        ending = "finished"
    except KeyboardInterrupt:
        ending = "killed"
        raise
    finally:
        reporter.close(ending)


class Reporter:
    """Hands the events of a run to its trackers; see `reporting`.

    A tracker that cannot begin stops the run before its first step. One that fails later is named in a warning and left
    out: the run goes on, for its result does not depend on it.
    """

    def __init__(self, names: Sequence[str], folder: Path | None, fresh: bool, notice: Notice) -> None:
        self._names, self._folder, self._notice = names, folder, notice
        self._known = {} if fresh or folder is None else _read(folder / KNOWN)
        self._trackers: dict[str, Tracker] = {}
        self._step = 0
        self._is_open = False

    def __call__(self, event: dict[str, Any]) -> None:
        """Take the next event.

        Raises:
            TrainingError: a tracker cannot begin.
        """
        if not self._is_open:
            self._open(event)
        kind = event["event"]
        if kind == "resumed":
            step = self._step = event["step"]
            self._each(lambda tracker: tracker.resume(step))
        elif kind in ("step", "dev", "spike"):
            step, values = event["step"], _metrics(event)
            self._step = step
            self._each(lambda tracker: tracker.log(values, step))
        elif kind in ("final", "end"):
            values, step = _totals(event), self._step
            self._each(lambda tracker: tracker.summarize(values, step))

    def close(self, ending: Ending) -> None:
        """Tell the trackers how the run ended."""
        self._each(lambda tracker: tracker.close(ending))
        self._trackers = {}

    def _open(self, event: Mapping[str, Any]) -> None:
        self._is_open = True
        settings = _settings(event) if event["event"] == "start" else {}
        title = "/".join(self._folder.parts[-2:]).strip("/") if self._folder else "run"
        for name in self._names:
            tracker: Tracker = getattr(importlib.import_module(f".{name}", __package__), TRACKERS[name])(
                title, self._folder
            )
            try:
                with _stdout_is_ours():
                    self._known[name] = tracker.open(settings, self._known.get(name))
            except Exception as error:
                raise TrainingError(
                    f"train.report_to: {name} cannot begin ({_reason(error)}); mend it, or leave {name} out"
                ) from error
            self._trackers[name] = tracker
        if self._folder is not None:
            write_json(self._folder / KNOWN, self._known)

    def _each(self, ask: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                with _stdout_is_ours():
                    ask(tracker)
            except Exception as error:
                del self._trackers[name]
                self._notice(f"warning: train.report_to: {name} failed ({_reason(error)}); the run goes on without it")


@contextlib.contextmanager
def _stdout_is_ours() -> Iterator[None]:
    """What libraries print goes to stderr: a command's stdout holds its results only."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _reason(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"


def _read(path: Path) -> dict[str, str]:
    """What trackers know the run by; nothing where that cannot be read."""
    try:
        held = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(name): str(value) for name, value in held.items()} if isinstance(held, dict) else {}


def _metrics(event: Mapping[str, Any]) -> dict[str, float]:
    """Of a `step`, `dev` or `spike` event."""
    if event["event"] == "step":
        return {
            "train/loss": event["loss"],
            "train/learning_rate": event["lr"],
            "train/grad_norm": event["norm"],
            "train/tokens": event["tokens"],
            "train/seconds": event["seconds"],
        }
    if event["event"] == "spike":
        steps = event["step"] - event.get("back_to", event["step"])
        return {"train/spike_loss": event["loss"], "train/spike_steps_back": steps}
    return {**_estimate(event, "dev/"), "dev/nll": event["nll"]}


def _totals(event: Mapping[str, Any]) -> dict[str, float]:
    """Of a `final` or `end` event."""
    if event["event"] == "final":
        return _estimate(event, f"final/{event['split']}_")
    seconds = {f"final/{name}_seconds": value for name, value in event["seconds"].items()}
    return {"final/parameters": event["parameters"], "final/best_step": event["best_step"], **seconds}


def _estimate(event: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """A metric, and the bounds of its 95 % interval."""
    low, high = event["interval"]
    name = f"{prefix}{event['metric']}"
    return {name: event["value"], f"{name}_low": low, f"{name}_high": high}


def _settings(event: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Of a `start` event: by dotted key, as on the command line; lists and nested settings as JSON."""
    flat: dict[str, Any] = {name: event[name] for name in ("base", "task", "seed")}
    for section in ("method", "train", "rows"):
        flat |= {f"{section}.{name}": value for name, value in event[section].items() if value is not None}
    return {
        name: value if isinstance(value, (str, int, float, bool)) else json.dumps(value, ensure_ascii=False)
        for name, value in flat.items()
    }
