"""What must run when: segments of a row, and the plan that follows from two facts about each.

A row is a sequence of slots, e.g. `[head][text][cue][answer]`, into which a method puts its learned one. A slot is
*shared* when everything up to and including it is the same for all rows, and *frozen* when nothing learned stands at or
before it. On a causal model these two facts decide its whole cost:

|        | shared                                           | per row                                        |
| ------ | ------------------------------------------------ | ---------------------------------------------- |
| frozen | `trunk_frozen`: run once per task                | `row_frozen`: run once per row, K/V kept       |
| live   | `trunk_live`: run once per step as a batch of one | `row_live`: run every step                     |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError

Learned = Literal["embeddings", "kv"]


@dataclass(frozen=True)
class Slot:
    """One place in a row's sequence.

    Attributes:
        name: which ids stand here: `head`, `text`, `cue`, `answer`; `prompt` for the learned one.
        same: its ids are the same for all rows of a task.
        learned: what a learned slot holds: `embeddings` [P, H] or `kv` [L, 2, G, P, D]; None for ids.
        start, stop: the part of the named ids that stands here (as in a Python slice).
        takes_positions: whether the text after it counts it (a learned K/V between cue and text does not).
    """

    name: str
    same: bool = False
    learned: Learned | None = None
    start: int | None = None
    stop: int | None = None
    takes_positions: bool = True


SLOTS = (Slot("head", same=True), Slot("text"), Slot("cue", same=True), Slot("answer"))


@dataclass(frozen=True)
class Plan:
    """The slots of a row by what they cost. In order: trunk (frozen, live), then row (frozen, live)."""

    trunk_frozen: tuple[Slot, ...]
    trunk_live: tuple[Slot, ...]
    row_frozen: tuple[Slot, ...]
    row_live: tuple[Slot, ...]

    def explain(self) -> str:
        """One line per box that is not empty, for the event log."""
        boxes = (
            ("run once per task", self.trunk_frozen),
            ("run once per step for all rows", self.trunk_live),
            ("run once per row, kept", self.row_frozen),
            ("run every step", self.row_live),
        )
        return "; ".join(f"{' + '.join(_show(slot) for slot in slots)}: {what}" for what, slots in boxes if slots)


def plan(slots: Sequence[Slot]) -> Plan:
    """Sort slots into the four boxes.

    The answer is never frozen per row: its tokens are scored, so they run (once, when nothing is learned).

    Raises:
        ConfigError: no answer at the end, or a text that is missing.
    """
    names = [slot.name for slot in slots]
    if names[-1:] != ["answer"] or "text" not in names:
        raise ConfigError(f"a row needs a text and ends in its answer; this method makes it {' + '.join(names)}")
    boxes: dict[tuple[bool, bool], list[Slot]] = {(s, f): [] for s in (True, False) for f in (True, False)}
    shared = frozen = True
    for slot in slots:
        shared = shared and (slot.same or slot.learned is not None)
        frozen = frozen and slot.learned is None and slot.name != "answer"
        boxes[shared, frozen].append(slot)
    return Plan(
        trunk_frozen=tuple(boxes[True, True]),
        trunk_live=tuple(boxes[True, False]),
        row_frozen=tuple(boxes[False, True]),
        row_live=tuple(boxes[False, False]),
    )


def _show(slot: Slot) -> str:
    return f"[{slot.name}]" if slot.learned is None else f"[{slot.name} (learned)]"
