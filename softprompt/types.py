"""Small immutable things that travel between the parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

Ids = tuple[int, ...]
Progress = Callable[[str, int, int], None]
"""Called as (what is being done, steps done, steps in all)."""

Notice = Callable[[str], None]
"""Called with one line that a person should read now."""

OnEvent = Callable[[dict[str, Any]], None]
"""Called with each new record of a run, e.g. `{"event": "step", "step": 3, "loss": 0.7, …}`."""


@dataclass(frozen=True)
class Example:
    """One row as the model reads it.

    Attributes:
        text: ids of the row's own part, T of them; of a row in several windows, those of all windows, end to end.
        candidates: ids of each possible answer, C of them, each ≥ 1 token.
        gold: index of the right candidate; None when the row has no label.
        where: `file:line` of the row.
        values: the row's fields.
        truncated: whether the text was cut to fit the context.
        offsets: where each text token begins and ends in what a head reads, in characters; (0, 0) outside of it. Empty
            where no head reads the tokens.
        target: the right outputs of a head that reads the tokens, or of a head that decides each label of the row (see
            the answer form). None where there is no right answer.
        places: for each word of which a head reads one state, the text token with that state; -1: it has none.
        holes: before which of the text's ids its slots stand, in order (T: behind all).
        windows: how many of the text's ids each window has; empty where the text runs as one.
        weight: what its loss is multiplied by: a row of weight 2 counts as if it stood twice in its step.
    """

    text: Ids
    candidates: tuple[Ids, ...]
    gold: int | None
    where: str
    values: dict[str, Any]
    truncated: bool = False
    offsets: tuple[tuple[int, int], ...] = ()
    target: tuple[int, ...] | None = None
    holes: Ids = ()
    windows: Ids = ()
    places: Ids = ()
    weight: float = 1.0

    @property
    def runs(self) -> tuple[Example, ...]:
        """The row as the model reads it: itself, or each of its windows (which have no right answer of their own)."""
        if not self.windows:
            return (self,)
        ends = accumulate(self.windows)
        cuts = [slice(end - size, end) for size, end in zip(self.windows, ends, strict=True)]
        return tuple(
            replace(self, text=self.text[cut], offsets=self.offsets[cut], target=None, windows=(), places=())
            for cut in cuts
        )

    def part(self, index: int | None) -> Ids:
        """The text's ids between its holes `index - 1` and `index` (from the beginning, to the end); None: all of them."""
        if index is None:
            return self.text
        borders = (0, *self.holes, len(self.text))
        return self.text[borders[index] : borders[index + 1]]

    @property
    def answer(self) -> Ids:
        """Ids of the right candidate.

        Raises:
            ValueError: the row has no label.
        """
        if self.gold is None:
            raise ValueError(f"{self.where}: the row has no label")
        return self.candidates[self.gold]


def digested(row: Any) -> Any:
    """What digests are made of, of a row or an example: its fields, and its weight where that is another than 1."""
    return row.values if row.weight == 1 else [row.values, row.weight]


def ignore_progress(what: str, done: int, total: int) -> None:
    """The progress callback that shows nothing."""


def named(progress: Progress, name: str) -> Progress:
    """Progress that says of which of several runs it is."""

    def tell(what: str, done: int, total: int) -> None:
        progress(f"{name}: {what}", done, total)

    return tell


def ignore_notice(line: str) -> None:
    """The notice that tells nobody."""


def ignore_event(event: dict[str, Any]) -> None:
    """The callable that hears of a run's records and does nothing."""


def megabytes(what: str, progress: Progress) -> Callable[[int, int], None]:
    """A (bytes done, bytes in all) callback that reports whole megabytes, each once."""
    told = -1

    def tell(done: int, total: int) -> None:
        nonlocal told
        if (now := done // 1_000_000) != told:
            told = now
            progress(f"{what} (MB)", now, max(1, total // 1_000_000))

    return tell
