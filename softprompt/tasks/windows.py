"""A context that is too long to be read at once is read in windows that overlap (Devlin et al. 2019, their code for SQuAD).

Each window is what stands in front of the context (the question), a stretch of the context, and what stands behind it.
Neighbouring stretches share `window_overlap` tokens, so every answer of up to one token more than that is whole in some window.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import DataError

OVERLAP = 64


def stretches(first: int, stop: int, room: int, overlap: int | None, where: str) -> list[tuple[int, int]]:
    """Where the stretches of the context's tokens `first` to `stop` begin and end.

    Args:
        room: tokens of one stretch.
        overlap: tokens that neighbours share; None: `OVERLAP`, or half of the room if that is less.
        where: `file:line` of the row.

    Raises:
        DataError: no room for a stretch, or none beside the overlap.
    """
    if room < 1:
        raise DataError(
            f"{where}: the row's own text around the context (its question) and the template leave no room for the context "
            f"({1 - room} tokens too many); shorten them"
        )
    overlap = min(OVERLAP, room // 2) if overlap is None else overlap
    if room <= overlap:
        raise DataError(
            f"{where}: a window has room for {room} tokens of the context, but neighbours are to share window_overlap "
            f"({overlap}); set it below {room}, or shorten what stands around the context"
        )
    found, begin = [(first, min(first + room, stop))], first
    while found[-1][1] < stop:
        begin += room - overlap
        found.append((begin, min(begin + room, stop)))
    return found


def holder(parts: Sequence[tuple[int, int]], first: int, last: int) -> int | None:
    """Which stretch holds the tokens `first` to `last` with most context around them; None: none holds them whole.

    By the lesser of both sides, as in BERT's code (`_check_is_max_context`); the first of equal ones.
    """
    around = {k: min(first - begin, end - 1 - last) for k, (begin, end) in enumerate(parts)}
    best = max(around, key=lambda k: around[k])
    return best if around[best] >= 0 else None
