"""What an estimator shows while it works: a bar in a terminal, a line in a notebook, and one line at the end."""

from __future__ import annotations

import html
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from ..errors import visible
from ..types import Progress, ignore_progress

_SHOWING = threading.Lock()  # a terminal holds one bar
_EVERY = 0.25  # seconds between two changes of a notebook's line


@contextmanager
def watching(verbose: Any) -> Iterator[tuple[Progress, Callable[[str], None]]]:
    """Progress and the last line for the time of a `with`.

    Args:
        verbose: True, False, or `auto`: where a person looks on, in a terminal or a notebook.

    Yields:
        (told how far it is, called with the one line at the end).
    """
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    display = _notebook()
    wanted = (console.is_terminal or display is not None) if verbose == "auto" else verbose
    if not wanted or not _SHOWING.acquire(blocking=False):
        yield ignore_progress, lambda line: None
        return
    lines: list[str] = []
    try:
        if display is not None:
            with _line(display, lines) as progress:
                yield progress, lines.append
            return
        if console.is_terminal:
            with _bar(console) as progress:
                yield progress, lines.append
        else:
            yield ignore_progress, lines.append
    finally:
        _SHOWING.release()
    for line in lines:
        console.print(visible(line), markup=False, emoji=False)


def _notebook() -> Callable[..., Any] | None:
    """What shows HTML in the notebook that runs us, if one does."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import HTML, display

    return lambda text, **how: display(HTML(f"<pre>{html.escape(visible(text))}</pre>"), **how)


@contextmanager
def _line(display: Callable[..., Any], lines: list[str]) -> Iterator[Progress]:
    """A line that changes, and is the last one (or nothing) in the end; it needs no widgets."""
    key = f"softprompt-{time.monotonic_ns()}"
    shown_at = time.monotonic()
    display("starting", display_id=key)

    def show(what: str, done: int, total: int) -> None:
        nonlocal shown_at
        if (now := time.monotonic()) - shown_at >= _EVERY:
            shown_at = now
            display(f"{what}: {done}/{total}", display_id=key, update=True)

    try:
        yield show
    finally:
        display("\n".join(lines), display_id=key, update=True)


@contextmanager
def _bar(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=visible(what), completed=done, total=total)

        yield show
