"""What an estimator shows while it works: a bar in a terminal or notebook, and one line at the end."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from ..errors import visible
from ..types import Progress, ignore_progress

_SHOWING = threading.Lock()  # a terminal holds one bar


@contextmanager
def watching(verbose: Any) -> Iterator[tuple[Progress, Callable[[str], None]]]:
    """Progress and the last line for the time of a `with`.

    Args:
        verbose: True, False, or `auto`: where a person looks on, in a terminal or a notebook.

    Yields:
        (told how far it is, called with the one line at the end).
    """
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    looked_at = console.is_terminal or console.is_jupyter
    if not (looked_at if verbose == "auto" else verbose) or not _SHOWING.acquire(blocking=False):
        yield ignore_progress, lambda line: None
        return
    lines: list[str] = []
    try:
        if not looked_at:
            yield ignore_progress, lines.append
        else:
            with _bar(console) as progress:
                yield progress, lines.append
    finally:
        _SHOWING.release()
    for line in lines:
        console.print(visible(line), markup=False, emoji=False)


@contextmanager
def _bar(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=visible(what), completed=done, total=total)

        yield show
