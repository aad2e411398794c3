"""What stands in the slots of a row: the task's ids, the row's own, the learned segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..types import Example, Ids
from .plan import Plan, Slot
from .rows import Piece


class Pieces:
    """Slots by a plan, filled.

    Args:
        shared: ids of the slots that all rows share, by slot name.
    """

    def __init__(self, plan: Plan, shared: dict[str, Ids]) -> None:
        self.plan, self.shared = plan, shared

    def shared_ids(self, slot: Slot) -> Ids:
        """Ids of a slot that all rows share."""
        return self.shared[slot.name][slot.start : slot.stop]

    def of(
        self, slots: Sequence[Slot], middle: Mapping[str, Piece], example: Example, answer: Ids = ()
    ) -> tuple[Piece, ...]:
        """What stands in these slots of a row; nothing in the answer's unless it is given.

        Args:
            middle: learned segments by slot name; slots of others stay empty.
        """
        pieces: list[Piece] = []
        for slot in slots:
            if slot.learned is not None:
                if slot.name in middle:
                    pieces.append(middle[slot.name])
            elif slot.name == "text":
                pieces.append(example.part(slot.part))
            elif slot.name == "answer":
                pieces.append(answer)
            else:
                pieces.append(self.shared_ids(slot))
        return tuple(pieces)

    def frozen_ids(self, example: Example) -> Ids:
        """The row's tokens that are run once and kept."""
        return _ids_of(self.of(self.plan.row_frozen, {}, example))

    def live_ids(self, example: Example) -> Ids:
        """All of a row's own tokens that ever run: its text, the cue, the right answer but for its last token."""
        answer = () if example.gold is None else example.answer[:-1]
        return (*_ids_of(self.of(self.plan.row_live, {}, example)), *answer)


def _ids_of(pieces: Sequence[Piece]) -> Ids:
    return tuple(token for piece in pieces if isinstance(piece, tuple) for token in piece)
