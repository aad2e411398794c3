"""Figures of the statistics' calibration: `calibration/TABLE`, from `results/calibration/figures.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from softprompt.benchmarks.figures import formats

# each table's title in the record, and its columns: name in the record, name on the page
TABLES: dict[str, tuple[str, dict[str, str]]] = {
    "same-method": (
        "The same method twice, declared different (%)",
        {
            "seeds' deviation": "seeds' standard deviation, points",
            "rows": "rows",
            "seeds": "seeds",
            "ours": "`bench compare`",
            "satterthwaite": "mean squares, Satterthwaite",
            "rows only": "t test over rows",
            "mcnemar": "McNemar, first seeds",
        },
    ),
    "power": (
        "A planted difference of so many points, found (%)",
        {
            "rows": "rows",
            "seeds": "seeds",
            "1": "1 point",
            **{points: points for points in "23456"},
            "smallest (points)": "smallest, points",
            "found there": "found there",
        },
    ),
    "no-worse": (
        "Declared no worse by more than 2 points (%)",
        {
            "rows": "rows",
            "seeds": "seeds",
            "really 2 points worse": "really 2 points worse",
            "really equal": "really equal",
        },
    ),
    "coverage": (
        "Mean over seeds: the interval holds the truth (%)",
        {"rows": "rows", "seeds": "seeds", "held": "holds the truth, %", "half-width": "half-width, points"},
    ),
}


def values(root: Path) -> Iterator[tuple[str, str]]:
    """(key, text) of each table."""
    path = root / "benchmarks/results/calibration/figures.json"
    if not path.is_file():
        return
    recorded = json.loads(path.read_text(encoding="utf-8"))["tables"]
    for key, (title, columns) in TABLES.items():
        yield f"calibration/{key}", _table(recorded[title], columns)


def _table(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> str:
    return formats.table(list(columns.values()), [[_cell(row[name]) for name in columns] for row in rows])


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return formats.signless(value) if isinstance(value, float) else str(value)
