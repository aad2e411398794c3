"""What rows keep is computed in parts of like length, each row once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from torch import Tensor

from ..types import Ids, Progress
from .cache import RowCache

Value = TypeVar("Value")
TOKENS_PER_FORWARD = 4096  # keys of all rows together; above it matrix products gain nothing, memory only grows


def encode(
    cache: RowCache,
    rows: Iterable[Ids],
    before: int,
    compute: Callable[[Sequence[Ids]], Iterable[Tensor]],
    progress: Progress,
) -> None:
    """Compute and keep what is not in the cache yet.

    Args:
        before: keys that stand in front of every row.
        compute: what the cache keeps of each row of a part.

    Raises:
        TrainingError: there is no room for it; before the first row is computed.
    """
    missing = sorted({ids for ids in rows if ids not in cache}, key=lambda ids: (len(ids), ids))
    if not missing:
        return
    cache.reserve([len(ids) for ids in missing])
    done = 0
    for part in parts(missing, [len(ids) + before for ids in missing]):
        for ids, value in zip(part, compute(part), strict=True):
            cache.put(ids, value)
        done += len(part)
        progress("encoding rows", done, len(missing))
    cache.save_index()


def parts(items: Sequence, sizes: Sequence[int], most: int = TOKENS_PER_FORWARD) -> Iterator[list]:
    """Cut sorted items into parts of at most so many padded keys (at least one item each)."""
    part: list = []
    for item, size in zip(items, sizes, strict=True):
        if part and (len(part) + 1) * size > most:
            yield part
            part = []
        part.append(item)
    if part:
        yield part


def in_buckets(
    sizes: Sequence[int], compute: Callable[[list[int]], Value], progress: Progress
) -> Iterator[tuple[list[int], Value]]:
    """Compute for the places of each bucket; tells how many are done when it is asked for the next."""
    done = 0
    for part in buckets(sizes):
        yield part, compute(part)
        done += len(part)
        progress("evaluating", done, len(sizes))


def buckets(sizes: Sequence[int], most: int = TOKENS_PER_FORWARD) -> Iterator[list[int]]:
    """Places of these sizes, shortest first, in parts as above."""
    order = sorted(range(len(sizes)), key=lambda place: (sizes[place], place))
    yield from parts(order, [sizes[place] for place in order], most)
