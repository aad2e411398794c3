"""Every error a user can cause. The library raises them; only the command line prints them (one line, exit code 2)."""

from __future__ import annotations

import re

MAX_MESSAGE = 2000  # characters


def visible(text: str) -> str:
    """Text with every character that cannot be seen as its escape: no name in a file writes to the terminal.

    That is control characters (line ends and escape sequences among them), marks of direction and all that Unicode does not
    call printable.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""C0 (but tab and newline), C1 and bidirectional controls: a stranger's file must not write to the terminal with them."""


def visible_controls(text: str) -> str:
    """Text of any number of lines with control characters as escapes (`\\x1b`, `\\u202e`)."""
    return _STEERING.sub(lambda match: repr(match[0])[1:-1], text)


def _line(text: str) -> str:
    """One line that can be read: a name of a megabyte is cut."""
    return visible(text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]} …")


class SoftpromptError(Exception):
    """Base class. The message is one line: what we got, where, what we expected, what to do."""

    def __init__(self, message: str = "") -> None:
        super().__init__(_line(message))


class _Several(SoftpromptError):
    """An error that may tell of several things at once; `problems` holds a line for each."""

    def __init__(self, message: str = "", problems: list[str] | None = None) -> None:
        super().__init__(message)
        self.problems = [_line(problem) for problem in problems or []]


class ConfigError(_Several):
    """A run or task file that cannot be used: unknown key, wrong type, contradicting settings.

    Where several are, the message holds them all and `problems` each of them.
    """


class DataError(_Several):
    """Rows that cannot be used. `problems` holds every one of them as `file:line: reason`."""


class InputError(DataError, ValueError):
    """What a caller hands over in Python cannot be used; a ValueError as well, which others' code expects there."""


class BaseModelError(SoftpromptError):
    """A base that cannot be loaded or that the engine cannot run exactly."""


class ArtifactError(SoftpromptError):
    """An artifact that is damaged, belongs to another base, or is of a newer format."""


class TrainingError(SoftpromptError):
    """Training that cannot go on: NaN loss, checkpoint of another run, no space left."""


class MissingExtraError(SoftpromptError):
    """An optional dependency is not installed; the message names the pip command."""
