"""What one rendering of a template may use: a stranger may have written it, so it may fill neither memory nor time.

Every operation that makes something new (a filter, a call, `~`, `+`, `*`, a slice, a list, an output) reports its size.
Where a small argument makes a large result, it reports before it is made. `Budget` adds the sizes up.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from jinja2 import Undefined
from jinja2.sandbox import SecurityError

from ..values import not_text

OUTPUT = 100_000  # characters of one value and of all that is given out, where the base does not say what it reads
SECONDS = 1.0
_WORK = 10  # in values of the largest size: all that is made while one row is rendered
_PRINTED = (None, "true", "false")  # what a template may put into its text (`{{ a == b }}`)
_STEP = 8  # a pass through a loop, in characters
_BITS = 10_000  # of an integer


class Budget:
    """What one rendering may make.

    Args:
        largest: characters (items, bytes) of one value, and of all output.
        plain: only texts and numbers are given out; else lists and null as Python writes them.
    """

    def __init__(self, largest: int, plain: bool) -> None:
        self.largest, self.plain = largest, plain
        self._left, self._out = largest * _WORK, largest
        self._until = time.thread_time() + SECONDS
        self._calls = 0

    def spend(self, size: int) -> None:
        """Account for something of this size.

        Raises:
            SecurityError: it is too large, or all has become too much or too slow.
        """
        self._left -= size + 1
        if size > self.largest:
            raise SecurityError(f"it builds a value of {size} characters or items; at most {self.largest}")
        if self._left < 0:
            raise SecurityError(f"it takes more than {self.largest * _WORK} steps and characters for one row")
        self._calls += 1
        if self._calls % 64 == 0 and time.thread_time() > self._until:
            raise SecurityError(f"it takes more than {SECONDS:g} s for one row")

    def made(self, value: Any) -> Any:
        """The value, accounted for."""
        self.spend(size_of(value, self.largest))
        return value

    def check_text(self, value: Any) -> None:
        """Refuse what is no text and would be written as Python writes it: `None`, a list, a function.

        Raises:
            SecurityError: it is; with `plain` only.
            UndefinedError: it is a field that the row does not have.
        """
        if not self.plain or isinstance(value, str):
            return
        if isinstance(value, Undefined):
            str(value)
        if (found := not_text(value)) not in _PRINTED:
            raise SecurityError(f"{{{{ … }}}} gives {found} and no text; give a text or a number, e.g. | join(', ')")

    def given_out(self, value: Any) -> str:
        """A value as it stands in the text."""
        self.check_text(value)
        self.spend(size_of(value, self.largest))
        text = value if isinstance(value, str) else str(value)
        self._out -= len(text)
        if self._out < 0:
            raise SecurityError(f"it gives more than {self.largest} characters")
        return text

    def steps(self, items: Iterable[Any], weight: int) -> Iterator[Any]:
        """The items of a loop; `weight` is what stands fixed in its body, in characters."""
        for item in items:
            self.spend(_STEP)
            self._out -= weight
            if self._out < 0:
                raise SecurityError(f"it gives more than {self.largest} characters")
            yield item


_running = threading.local()


def current() -> Budget:
    """The budget of the rendering that this thread is at."""
    budget: Budget = _running.budget
    return budget


class running:
    """A budget for the time of one rendering."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def __enter__(self) -> None:
        _running.budget = self._budget

    def __exit__(self, *_: object) -> None:
        del _running.budget


def size_of(value: Any, most: int) -> int:
    """Characters, bytes and items in a value, those of nested ones as often as they stand there; exact up to `most`.

    A list that holds itself twice, forty times over, is small in memory and not when it is written or compared.
    """
    if isinstance(value, str):
        return len(value)
    if not isinstance(value, (list, tuple, dict, set, frozenset)):
        return _scalar(value)
    size, rest = 0, [value]
    while rest and size <= most:
        one = rest.pop()
        if isinstance(one, dict):
            size += len(one)
            rest.extend(itertools.islice(itertools.chain(one.keys(), one.values()), most))
        elif isinstance(one, (list, tuple, set, frozenset)):
            size += len(one) + 1
            rest.extend(itertools.islice(one, most))
        else:
            size += _scalar(one)
    return size


def _scalar(value: Any) -> int:
    if isinstance(value, (str, bytes)):
        return len(value)
    return 8 + value.bit_length() // 3 if isinstance(value, int) else 8


def repeated(value: Any, times: Any) -> None:
    """Refuse `value * times`, or a power, that would be too large.

    Raises:
        SecurityError: it would.
    """
    if isinstance(value, int) and isinstance(times, int):
        if value.bit_length() + times.bit_length() > _BITS:
            raise SecurityError(f"it computes an integer of more than {_BITS} bits")
    elif isinstance(times, int) and hasattr(value, "__len__"):
        current().spend(size_of(value, current().largest) * max(0, times))


def power(base: Any, exponent: Any) -> None:
    """The same for `base ** exponent`."""
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > _BITS:
        raise SecurityError(f"it computes an integer of more than {_BITS} bits")


def replace(text: str, old: str, new: str, count: int | None = None) -> str:
    """`str.replace`, whose length is known before."""
    places = text.count(old) if count is None or count < 0 else min(count, text.count(old))
    current().spend(len(text) + places * max(0, len(new) - len(old)))
    return text.replace(old, new, -1 if count is None else count)


def join(parts: Iterable[Any], between: str = "") -> list[Any]:
    """The parts, if joining them by `between` is not too long."""
    found = list(itertools.islice(parts, current().largest + 1))
    current().spend(size_of(found, current().largest) + len(between) * len(found))
    return found
