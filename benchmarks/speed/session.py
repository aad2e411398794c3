"""One call: rows that are kept are taken, the others measured, told and kept at once, and what is left is said."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from softprompt.benchmarks.speed.kept import Kept
from softprompt.benchmarks.speed.schedule import Schedule, Span, in_words
from softprompt.types import Notice, Progress

Row = dict[str, Any]


class Session:
    """See the module.

    Args:
        spans: of all cases that were asked for, in order; called only if one of them is to be measured.
        fresh: whether this call has thrown kept rows away.
    """

    def __init__(
        self,
        names: list[str],
        kept: Kept,
        spans: Callable[[], dict[str, Span]],
        progress: Progress,
        notice: Notice,
        fresh: bool = False,
    ) -> None:
        self.names, self._kept, self._fresh = names, kept, fresh
        self._progress, self._notice = progress, notice
        self._before = [name for name in names if kept.row(name) is not None]
        self._measured, self._began = 0, time.monotonic()
        self._schedule = Schedule({} if len(self._before) == len(names) else spans())
        if self._schedule.names:
            for name in self._before:
                self._schedule.done(name, kept.seconds(name))
        self._foretold = self._schedule.left()

    def tell_plan(self) -> None:
        """Say what is left to do and how long it will take, or that all is done."""
        if not self._schedule.names:
            return
        least, most = in_words(self._foretold.least), in_words(self._foretold.most)
        more = f" ({least} to {most}, as figures vary from step to step)" if most != least else ""
        cases, before = _cases(len(self._schedule.names)), ""
        if self._before:
            before = f"{_cases(len(self._before))} of {len(self.names)} measured before ({self._kept.folder}); "
            cases = f"{len(self._schedule.names)} left"
        self._notice(
            f"{before}{cases}: about {in_words(self._foretold.middle)}{more}, if the machine stays as busy as it is now"
        )

    def row(self, name: str, measure: Callable[[Progress], Row]) -> Row:
        """The kept row of this name, or the one that is measured now. One whose losses differ is told, not kept."""
        if (kept := self._kept.row(name)) is not None:
            return kept
        self._schedule.begin(name)
        began = time.monotonic()
        row = measure(self._tell_progress)
        seconds = time.monotonic() - began
        if row["losses_equal"] is not False:
            self._kept.add(name, row, seconds)
        self._measured += 1
        self._schedule.done(name, seconds)
        self._notice(f"{_words(row)}; {in_words(seconds)}{self._words_left()}")
        return row

    def kept(self, name: str) -> Row | None:
        """The kept row of this name."""
        return self._kept.row(name)

    def drop(self, name: str) -> None:
        """A case is left out."""
        self._schedule.drop(name)

    def tell_end(self) -> None:
        """Say how long it took, or that nothing was left to do."""
        if self._measured:
            took = in_words(time.monotonic() - self._began)
            self._notice(f"{_cases(self._measured)} in {took} (foretold: {in_words(self._foretold.middle)})")
        elif self._before:
            first, last = self._kept.measured_at(self._before)
            when = first if first == last else f"{first} to {last}"
            self._notice(
                f"done: {_cases(len(self._before))} measured before ({when}); nothing is left to do (--fresh measures again)"
            )

    def after_a_stop(self) -> str:
        """What becomes of the work."""
        if self._kept.folder is None:
            return "nothing is kept without a folder"
        done = sum(self._kept.row(name) is not None for name in self.names)
        same = "the same command without --fresh" if self._fresh else "the same command"
        return f"{done} of {_cases(len(self.names))} kept in {self._kept.folder}; {same} goes on with the others"

    def _tell_progress(self, what: str, done: int, total: int) -> None:
        self._progress(f"{what}{self._words_left()}", done, total)

    def _words_left(self) -> str:
        left = self._schedule.left()
        return f", about {in_words(left.middle)} left in all" if self._schedule.names else ""


def _cases(count: int) -> str:
    return f"{count} case{'' if count == 1 else 's'}"


def _words(row: Row) -> str:
    """A row in one line."""
    if row["losses_equal"] is False:
        return f"{row['name']}: losses differ where they must be equal; no speeds were taken"
    line = f"{row['name']}: {row['our_seconds']:.3g} s"
    if row["peer_seconds"] is not None:
        line += f" against {row['peer_seconds']:.3g} s ({row['peer']})"
    if row["speedup"] is not None:
        line += f", {row['speedup']:.2f} times as fast"
    if row.get("speedup_interval") is not None:
        line += " [{:.2f}, {:.2f}]".format(*row["speedup_interval"])
    return line
