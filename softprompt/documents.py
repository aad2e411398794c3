"""Texts that were read, kept for the prompts that ask about them next: a budget of bytes, the least recently used one goes."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .answers import Compiled
from .answers.serving import LONG
from .base import Base
from .engine import Reading, TextKey, left_behind, read_texts, text_key
from .types import Example, Ids

BUDGET = 500_000_000  # bytes
REST = 128  # tokens that a text may have more than another one, behind whose reading they are run for each prompt


@dataclass(frozen=True)
class CacheState:
    """What a document cache holds, and how often it helped.

    Attributes:
        texts, nbytes: what it holds.
        hits, misses: how often a text that a call asked about was here, and how often it was not.
    """

    texts: int
    nbytes: int
    hits: int
    misses: int


class DocumentCache:
    """Readings by content. Several threads may use it at once.

    Args:
        budget: bytes that it may hold; 0 keeps nothing beyond a call.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self.budget = budget
        self._lock = threading.Lock()
        self._readings: OrderedDict[TextKey, Reading] = OrderedDict()
        self._sizes: dict[TextKey, int] = {}  # bytes of each when it was last asked about
        self._nbytes = 0  # their sum: there may be tens of thousands
        self._hits = self._misses = 0

    @property
    def state(self) -> CacheState:
        """What it holds now."""
        with self._lock:
            return CacheState(len(self._readings), self._nbytes, self._hits, self._misses)

    def behind_texts(self, rows: Sequence[Example], prompts: Sequence[Compiled]) -> list[Compiled]:
        """The prompts, each behind its row's text where that can be shared; texts that are not here are read first.

        A short text that only one of them asks about is not: it runs with that prompt's own tokens in one go.
        """
        keys = text_keys(rows, prompts)
        readings = self._found({key for key in keys if key is not None})
        self._read(readings, keys, prompts)
        self._read_on(readings, keys, rows, prompts)
        behind: dict[tuple[int, TextKey], Compiled] = {}
        found = []
        for key, prompt in zip(keys, prompts, strict=True):
            reading = None if key is None else readings.get(key)
            if key is None or reading is None:
                found.append(prompt)
                continue
            mine = id(prompt), key
            if mine not in behind:
                behind[mine] = replace(prompt, reading=reading)
            found.append(behind[mine])
        return found

    def clear(self) -> None:
        """Forget all texts."""
        with self._lock:
            self._readings.clear()
            self._sizes.clear()
            self._nbytes = 0

    def _found(self, keys: set[TextKey]) -> dict[TextKey, Reading]:
        with self._lock:
            here = {key: self._readings[key] for key in keys if key in self._readings}
            for key in here:
                self._readings.move_to_end(key)
            self._hits += len(here)
            self._misses += len(keys) - len(here)
        return here

    def _read(
        self, readings: dict[TextKey, Reading], keys: Sequence[TextKey | None], prompts: Sequence[Compiled]
    ) -> None:
        """Read what is missing, prefix after prefix, and keep it."""
        asked = Counter(keys)
        missing: dict[TextKey, dict[TextKey, Compiled]] = {}  # by what is the same but for the text
        for key, prompt in zip(keys, prompts, strict=True):
            if key is not None and key not in readings and (asked[key] > 1 or len(key.text) >= LONG):
                missing.setdefault(replace(key, text=()), {})[key] = prompt
        for wanted in missing.values():
            first = next(iter(wanted.values()))
            read = read_texts(first.engine, first.shared_prefix, [key.text for key in wanted])
            readings.update(zip(wanted, read, strict=True))

    def _read_on(
        self,
        readings: dict[TextKey, Reading],
        keys: Sequence[TextKey | None],
        rows: Sequence[Example],
        prompts: Sequence[Compiled],
    ) -> None:
        """Read what is frozen behind long texts, such as questions, and keep all within the budget."""
        wanted: dict[TextKey, tuple[Base, set[Ids]]] = {}
        for key, row, prompt in zip(keys, rows, prompts, strict=True):
            if key in readings and len(key.text) >= LONG:
                left = left_behind(prompt.engine, row, key.text)
                wanted.setdefault(key, (prompt.engine.base, set()))[1].update([left] if left else [])
        for key, (base, ids) in wanted.items():
            readings[key].read_on(base, sorted(ids))
        with self._lock:
            for key, reading in readings.items():
                size = self._readings.setdefault(key, reading).nbytes
                self._nbytes += size - self._sizes.get(key, 0)
                self._sizes[key] = size
            while self._readings and self._nbytes > self.budget:
                oldest, _ = self._readings.popitem(last=False)
                self._nbytes -= self._sizes.pop(oldest)


def text_keys(rows: Sequence[Example], prompts: Sequence[Compiled]) -> list[TextKey | None]:
    """By which reading each row's text is shared.

    One document may be cut at other places for other prompts, as each leaves room for its own question and answer. These
    share the reading of the shortest, behind which each runs the few tokens that it has more.

    Returns:
        None where a prompt's form does not run rows behind texts, or something is learned before the text's end.
    """
    keys = [
        text_key(prompt.engine, row) if prompt.form.mixes else None for row, prompt in zip(rows, prompts, strict=True)
    ]
    texts: dict[TextKey, set[Ids]] = {}  # by what is the same but for the text
    for key in keys:
        if key is not None and len(key.text) >= LONG:
            texts.setdefault(replace(key, text=()), set()).add(key.text)
    begins: dict[TextKey, TextKey] = {}
    for front, some in texts.items():
        first, *others = sorted(some)  # a text stands right behind those that it goes on from
        for text in others:
            if len(text) - len(first) <= REST and text[: len(first)] == first:
                begins[replace(front, text=text)] = replace(front, text=first)
            else:
                first = text
    return [None if key is None else begins.get(key, key) for key in keys]
