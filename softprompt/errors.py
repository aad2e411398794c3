"""Every error a user can cause. The library raises them; only the command line prints them (one line, exit code 2)."""

from __future__ import annotations


class SoftpromptError(Exception):
    """Base class. The message is one line: what we got, where, what we expected, what to do."""


class ConfigError(SoftpromptError):
    """A run or task file that cannot be used: unknown key, wrong type, contradicting settings."""


class DataError(SoftpromptError):
    """Rows that cannot be used. `problems` holds every one of them as `file:line: reason`."""

    def __init__(self, message: str, problems: list[str] | None = None) -> None:
        super().__init__(message)
        self.problems = problems or []


class BaseModelError(SoftpromptError):
    """A base that cannot be loaded or that the engine cannot run exactly."""


class ArtifactError(SoftpromptError):
    """An artifact that is damaged, belongs to another base, or is of a newer format."""


class TrainingError(SoftpromptError):
    """Training that cannot go on: NaN loss, checkpoint of another run, no space left."""


class MissingExtraError(SoftpromptError):
    """An optional dependency is not installed; the message names the pip command."""
