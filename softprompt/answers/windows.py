"""A context that is too long to be read at once is read in windows that overlap (Devlin et al. 2019, their code for SQuAD).

Each window is what stands in front of the context (the question), a part of the context, and what stands behind it.
Neighbouring windows share `window_overlap` tokens, so every answer of up to one token more than that is whole in some window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, DataError
from ..tasks import BoundTask
from ..types import Example, Ids

OVERLAP = 64


@dataclass(frozen=True)
class Windows:
    """A row's text as its windows, end to end.

    Attributes:
        ids: all of the row's own tokens, each once.
        offsets: where each begins and ends in the field that is read, in characters; (0, 0) outside of it.
        bounds: of each window, where the field's part begins and ends (exclusive) among `ids`.
        windows: of each window its tokens, as indices of `ids`.
    """

    ids: Ids
    offsets: tuple[tuple[int, int], ...]
    bounds: list[tuple[int, int]]
    windows: list[list[int]]

    def place(self, window: int, token: int) -> int:
        """Where a token of that window stands among all windows, end to end."""
        return sum(map(len, self.windows[:window])) + self.windows[window].index(token)

    @property
    def order(self) -> list[int]:
        """The tokens of all windows, end to end, as indices of `ids`."""
        return [token for window in self.windows for token in window]

    def example(self, values: dict[str, Any], where: str, target: tuple[int, ...] | None) -> Example:
        """The row; `target` is what a head is to say of its tokens, None where it has no answer."""
        order = self.order
        return Example(
            tuple(self.ids[token] for token in order),
            ((0,),),
            0 if target is not None else None,
            where,
            values,
            offsets=tuple(self.offsets[token] for token in order),
            target=target,
            windows=tuple(map(len, self.windows)) if len(self.windows) > 1 else (),
        )


@dataclass(frozen=True)
class ReadField:
    """The field of a row whose tokens a head reads, and the words of messages about it.

    Attributes:
        name: of the field.
        answers, done: what the head answers with, and what is done to it: "words", "tagged".
        around: what stands around the field, in parentheses; empty where that differs from task to task.
    """

    name: str
    answers: str
    done: str
    around: str = ""


def in_windows(bound: BoundTask, values: dict[str, Any], field: ReadField, overlap: int | None, where: str) -> Windows:
    """A row whose tokens a head reads; too long a one becomes several windows.

    Args:
        field: what the template shows, to the letter, and the head reads.
        overlap: see `window_bounds`.

    Raises:
        ConfigError: slots inside of `template.input`.
        DataError: the template does not show the field as it is, or what stands around it leaves too little room.
    """
    if any(slot.part is not None for slot in bound.slots):
        raise ConfigError(
            f"template.input has soft slots inside, where {field.answers} are {field.done}; move them in front or behind"
        )
    shown = bound.task.shown(values)
    own, ids, placed = bound.prompter.offsets(shown, where)
    text = str(shown[field.name])
    begin = own.rfind(text)
    if begin < 0:
        raise DataError(
            f"{where}: template.input must show {{{{ {field.name} }}}} as it is, for its words to be {field.done}"
        )
    last, room = begin + len(text), min(bound.room, bound.task.spec.max_text_tokens or bound.room)
    # some tokenizers count the blank in front of a word to its first token, or join signs around a border
    clipped = [(max(a, begin) - begin, min(b, last) - begin) for a, b in placed]
    offsets = [(a, b) if a < b else (0, 0) for a, b in clipped]
    inside = [k for k, (a, b) in enumerate(offsets) if b > a]
    if not inside:
        raise DataError(f"{where}: this base's tokenizer has no tokens for the {field.name}")
    first, stop = inside[0], inside[-1] + 1
    bounds = [(first, stop)]
    if len(ids) > room:
        bounds = window_bounds(first, stop, room - first - (len(ids) - stop), overlap, where, field)
    windows = [[*range(first), *range(start, end), *range(stop, len(ids))] for start, end in bounds]
    return Windows(ids, tuple(offsets), bounds, windows)


def window_bounds(
    first: int, stop: int, room: int, overlap: int | None, where: str, field: ReadField
) -> list[tuple[int, int]]:
    """Where each window's part of the field's tokens `first` to `stop` begins and ends.

    Args:
        room: tokens of the field in one window.
        overlap: tokens that neighbours share; None: `OVERLAP`, or half of the room if that is less.
        where: `file:line` of the row.

    Raises:
        DataError: no room for a window, or none beside the overlap.
    """
    if room < 1:
        raise DataError(
            f"{where}: the row's own text around the {field.name}{field.around} and the template leave no room for the "
            f"{field.name} ({1 - room} tokens too many); shorten them"
        )
    overlap = min(OVERLAP, room // 2) if overlap is None else overlap
    if room <= overlap:
        raise DataError(
            f"{where}: a window has room for {room} tokens of the {field.name}, but neighbours are to share window_overlap "
            f"({overlap}); set it below {room}, or shorten what stands around the {field.name}"
        )
    bounds, begin = [(first, min(first + room, stop))], first
    while bounds[-1][1] < stop:
        begin += room - overlap
        bounds.append((begin, min(begin + room, stop)))
    return bounds


def holder(bounds: Sequence[tuple[int, int]], first: int, last: int) -> int | None:
    """Which window holds the tokens `first` to `last` with most context around them; None: none holds them whole.

    By the lesser of both sides, as in BERT's code (`_check_is_max_context`); the first of equal ones.
    """
    around = {k: min(first - begin, end - 1 - last) for k, (begin, end) in enumerate(bounds)}
    best = max(around, key=lambda k: around[k])
    return best if around[best] >= 0 else None
