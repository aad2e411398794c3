"""What the command line shows: a progress bar on a terminal, plain lines elsewhere, errors in one line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..config import read_yaml
from ..errors import DataError, SoftpromptError
from ..types import Progress as Callback

err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False, soft_wrap=True)

_EVERY = 10.0  # seconds between two plain lines of the same work
_SHOWN_PROBLEMS = 50


@contextmanager
def progress() -> Iterator[Callback]:
    """A progress callback for the time of a `with`."""
    if not err.is_terminal:
        yield _PlainLines()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        last = [""]

        def show(what: str, done: int, total: int) -> None:
            kind = what.partition(",")[0]
            if kind != last[0]:
                last[0] = kind
                bar.reset(task, total=total)
            bar.update(task, description=what, completed=done, total=total)

        yield show


class _PlainLines:
    """One line when a piece of work begins to report, every few seconds, and when it ends."""

    def __init__(self) -> None:
        self._kind, self._at = "", 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        kind, now = what.partition(",")[0], time.monotonic()
        if kind == self._kind and done < total and now - self._at < _EVERY:
            return
        self._kind, self._at = kind, now
        print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)


def megabytes(what: str, callback: Callback) -> Callable[[int, int], None]:
    """A (bytes done, bytes in all) callback that reports whole megabytes."""
    return lambda done, total: callback(f"{what} (MB)", done // 1_000_000, max(1, total // 1_000_000))


def base_of(artifact: Path, recorded: str, given: str | None) -> str:
    """Which base to load for an artifact: the one given, the one in its run's folder, the one in its manifest."""
    for run in (artifact / "run.yaml", artifact.parent / "run.yaml"):
        if given is None and run.is_file():
            return str(read_yaml(run)["base"]["name"])  # a local folder: the artifact itself holds no paths
    return given or recorded


def complain(error: SoftpromptError) -> None:
    """Print an error as one line, after the malformed rows one by one."""
    if isinstance(error, DataError):
        for problem in error.problems[:_SHOWN_PROBLEMS]:
            print(problem, file=sys.stderr)
        if len(error.problems) > _SHOWN_PROBLEMS:
            print(f"… and {len(error.problems) - _SHOWN_PROBLEMS} more", file=sys.stderr)
    print(f"error: {error}", file=sys.stderr)
