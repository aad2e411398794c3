"""How a command ends: an error is one line and code 2, a signal one and 128 + its number, a mistake of ours a traceback."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

from ..errors import ConfigError, DataError, SoftpromptError
from ..interrupts import STOPPING, Interrupted, raise_interrupted
from ..launcher import launched
from .streams import lose, visible_line, write_whole

DEBUG = "SOFTPROMPT_DEBUG"
_SHOWN_PROBLEMS = 50


class Stopped(BaseException):
    """A KeyboardInterrupt on its way out of a verb (typer would turn it into an exit code)."""

    def __init__(self, stop: KeyboardInterrupt) -> None:
        self.stop = stop


@contextlib.contextmanager
def ended() -> Iterator[None]:
    """The time of a command; leaves by SystemExit where it does not end well."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # a shell's background jobs do not hear Ctrl-C, nor `nohup` SIGHUP
            signal.signal(number, raise_interrupted)
    try:
        with _in_one_line():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except (Stopped, KeyboardInterrupt) as error:
        _interrupted(error.stop if isinstance(error, Stopped) else error)
    except BrokenPipeError:
        lose(sys.stdout)  # `… | head` is no error
        sys.exit(0)
    except Exception as error:
        line = _plain(error)
        if line is None:
            _mistake(error)
        if os.environ.get(DEBUG):
            write_whole(traceback.format_exc(), sys.stderr)
        _exit([*_problems(error), f"error: {line}"], 2)


def _problems(error: Exception) -> list[str]:
    if not isinstance(error, (ConfigError, DataError)) or (isinstance(error, ConfigError) and len(error.problems) < 2):
        return []
    more = len(error.problems) - _SHOWN_PROBLEMS
    return error.problems[:_SHOWN_PROBLEMS] + ([f"… and {more} more"] if more > 0 else [])


def _plain(error: Exception) -> str | None:
    """What the user can do something about, in one line; None where the mistake is ours."""
    if isinstance(error, ConfigError) and len(error.problems) > 1:
        return f"{len(error.problems)} settings cannot be used; the lines above say what to write"
    if isinstance(error, SoftpromptError):
        return str(error)
    if isinstance(error, OSError):
        what = f"{error.filename}: " if error.filename else ""
        return f"{what}{error.strerror or error}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without importing torch
        return "out of memory; use a smaller train.micro_batch, train.gradient_checkpointing: true, or a smaller base"
    if isinstance(error, UnicodeError):
        return f"a text that cannot be encoded or decoded ({error}); save the file as UTF-8"
    return None


def _interrupted(stop: KeyboardInterrupt) -> NoReturn:
    stop = stop if isinstance(stop, Interrupted) else Interrupted()
    _exit([str(stop)], 128 + stop.number)


def _mistake(error: Exception) -> NoReturn:
    write_whole(
        traceback.format_exc(), sys.__stderr__
    )  # also of a process that is not heard (`console.as_one_process`)
    line = f"{type(error).__name__}: this is a bug in softprompt; please report it with the lines above"
    _exit([f"error: {line}"], 1)


def _exit(lines: list[str], code: int) -> NoReturn:
    if launched("rank") == 0:
        for line in lines:
            write_whole(visible_line(line) + "\n", sys.stderr)
    else:
        time.sleep(1)  # a launcher ends all as soon as one has ended; the first is to be heard before
    sys.exit(code)
