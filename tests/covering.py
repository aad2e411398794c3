"""Which pairs of a product the default run takes: each row and each column at least once; the others are `full`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest


def covering(
    rows: Sequence[Any],
    columns: Sequence[Any],
    group: Callable[[Any], str] = lambda row: "",
    name: Callable[[Any], str] = lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else str(value),
) -> list[Any]:
    """All pairs of rows and columns, for `parametrize`; those that cover them carry no mark.

    Args:
        group: of a row; in each group of rows every column comes at least once.
        name: of a value, for pytest's ids.
    """
    taken = set()
    for kind in dict.fromkeys(map(group, rows)):
        places = [place for place, row in enumerate(rows) if group(row) == kind]
        most = max(len(places), len(columns))
        taken |= {(places[turn % len(places)], turn % len(columns)) for turn in range(most)}
    return [
        pytest.param(row, column, id=f"{name(row)}-{name(column)}", marks=[] if (a, b) in taken else pytest.mark.full)
        for (a, row), (b, column) in itertools.product(enumerate(rows), enumerate(columns))
    ]
