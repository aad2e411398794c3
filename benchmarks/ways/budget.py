"""What fits in the time: how many rows, and which runs may still begin."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from softprompt.benchmarks.compare.record import Record
from softprompt.benchmarks.compare.runs import Cell, Run
from softprompt.benchmarks.speed.schedule import ENCODE, Speed
from softprompt.proposal import Proposal
from softprompt.values import text_of

MOST_ROWS, LEAST_ROWS = 400, 60
SHARE = 0.5  # of the time, for what is not trained step by step
PASSES = 3.5  # of all texts through the causal base: zero-shot, probe, examples; the encoder's are short
START = 25.0  # seconds on the machine of `Speed`: two bases are loaded and proved, 33 runs begin and end
LETTERS = 4  # of a token, where a base's tokens cannot be counted yet
FRAME = 20  # tokens that are put round a text


def rows_that_fit(proposal: Proposal, minutes: float, speed: Speed) -> int:
    """How many of the file's rows are tried: 400 at most, 60 at least, all where there are fewer."""
    every = sum(map(len, proposal.splits.values()))
    spare = max(0.0, 60 * minutes * SHARE - START * speed.start)
    fit = int(spare / (PASSES * speed.step * ENCODE * _tokens(proposal)))
    return min(every, MOST_ROWS, max(fit, LEAST_ROWS))


def seconds_of_the_cheap(proposal: Proposal, rows: int, speed: Speed) -> float:
    """Expected seconds until all ways but those that are trained step by step have ended."""
    return START * speed.start + rows * PASSES * speed.step * ENCODE * _tokens(proposal)


def _tokens(proposal: Proposal) -> float:
    """Of a text, in the mean."""
    if proposal.lengths:
        return FRAME + sum(proposal.lengths) / len(proposal.lengths)
    fields = proposal.seen.roles.fields
    letters = [len(text_of(row.values.get(name) or "")) for row in proposal.seen.rows for name in fields]
    return FRAME + sum(letters) / LETTERS / max(1, len(proposal.seen.rows))


@dataclass
class Budget:
    """Says of each run whether there is time for it.

    Attributes:
        ends: on the clock of `time.monotonic`.
        expected: seconds of a run, by its cell's settings, where none of them has ended.
        late: contenders of which a run did not fit.
    """

    ends: float
    expected: dict[str, float] = field(default_factory=dict)
    late: dict[str, float] = field(default_factory=dict)

    def allows(self, run: Run, records: Mapping[str, Record]) -> bool:
        """Whether it will have ended in time, as its fellows did."""
        seconds = self.seconds(run.cell, records)
        fits = time.monotonic() + seconds <= self.ends
        if not fits:
            self.late[run.cell.place.contender] = seconds
        return fits

    def seconds(self, cell: Cell, records: Mapping[str, Record]) -> float:
        """Of a run of this cell: of the longest that has ended, else what is expected."""
        ended = [one.seconds_in_all for one in records.values() if one.digests.get("settings") == cell.settings]
        return max(ended, default=self.expected.get(cell.settings, 0.0))

    @property
    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()
