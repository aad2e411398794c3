"""What goes to the screen can always be shown: characters that a terminal lacks, and those that would steer it."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from ..errors import visible_controls


def visible_line(text: str) -> str:
    """As `visible_controls`, in one line."""
    return visible_controls(text).replace("\n", "\\n")


class VisibleConsole(Console):
    """A console whose texts and table cells cannot steer the terminal."""

    def render_str(self, text: str, **settings: Any) -> Text:  # type: ignore[override]
        """Every plain string that is printed comes through here."""
        return super().render_str(visible_controls(text), **settings)

    def on_broken_pipe(self) -> None:
        """rich would end the process; what a closed pipe means is said elsewhere (`ending`, `NoticeConsole`)."""
        raise BrokenPipeError


def lose(stream: TextIO) -> None:
    """What is still written to a stream that nobody reads any more goes nowhere."""
    with contextlib.suppress(OSError, ValueError):  # a test's or a notebook's own has no number
        number = stream.fileno()
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), number)


@contextlib.contextmanager
def unread_ends_nothing(stream: TextIO) -> Iterator[None]:
    """That nobody reads stderr any more (`2>&1 | head`, a closed terminal) ends no work."""
    try:
        yield
    except OSError:
        lose(stream)


def write_whole(text: str, stream: TextIO | None) -> None:
    """Write to stderr, if somebody reads it, at once, so that no other process gets into a line.

    Where a stream has no buffer, as under `torchrun`, `print` writes a line and its end apart. None is a closed stream.
    """
    if stream is not None:
        with unread_ends_nothing(stream):
            stream.write(text)
            stream.flush()


class NoticeConsole(VisibleConsole):
    """stderr."""

    def print(self, *what: Any, **how: Any) -> None:
        """Show something, if somebody reads it."""
        with unread_ends_nothing(sys.stderr):
            super().print(*what, **how)


def visible_json(text: str) -> str:
    """JSON with characters that cannot be seen as its own escapes; they can stand in its texts only."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    """As JSON writes it: `\\u202e`, in two halves beyond the first 65,536."""
    return json.dumps(char)[1:-1]


def make_streams_safe() -> None:
    """Let stdout and stderr show what they can: a path that is no UTF-8 as escapes, what a terminal lacks as `?`.

    Pipes and files get UTF-8: JSON and tables of any language. Warnings are one line, without the place in the code.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by `>&-` or a service
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
    codecs.register_error("softprompt.shown", _shown)
    warnings.formatwarning = _warning
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):
            continue  # a test's or a notebook's own
        if stream is sys.stdout and not stream.isatty():
            stream.reconfigure(encoding="utf-8")
        stream.reconfigure(errors="softprompt.shown")


def _warning(message: Warning | str, *place: Any, **more: Any) -> str:
    return f"warning: {visible_line(str(message).strip())}\n"


def _shown(error: UnicodeError) -> tuple[str, int]:
    """`\\udce9` for half a character or a byte that is none (as JSON writes it), `?` for what the encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    half = (f"\\u{ord(char):04x}" if "\ud800" <= char <= "\udfff" else "?" for char in found)
    return "".join(half), error.end
