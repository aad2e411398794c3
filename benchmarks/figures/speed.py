"""Figures of `bench speed`: `speed/CASE/speedup` and `/interval`, and `speed/table`, from `results/speed/rows.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from softprompt.benchmarks.figures import formats


def values(root: Path) -> Iterator[tuple[str, str]]:
    """(key, text) of each case that was measured, and of all together."""
    path = root / "benchmarks/results/speed/rows.json"
    if not path.is_file():
        return
    rows = [entry["row"] for entry in json.loads(path.read_text(encoding="utf-8"))["rows"].values()]
    for row in rows:
        yield f"speed/{row['name']}/speedup", formats.times(row["speedup"])
        if row.get("speedup_interval"):
            yield f"speed/{row['name']}/interval", _interval(row)
    yield "speed/table", _table(rows)


def _interval(row: dict[str, Any]) -> str:
    low, high = row["speedup_interval"]
    return f"[{formats.times(low)}, {formats.times(high)}]"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    head = [
        "case",
        "against",
        "rows, text tokens",
        "a step, ours",
        "theirs",
        "times faster",
        "peak memory, ours / theirs",
    ]
    lines = [
        [
            f"`{row['name']}`",
            row["peer"] + (", equal losses" if row["losses_equal"] else ""),
            f"{row['batch']}, {row['text_tokens']:.0f}",
            f"{row['our_seconds']:.3g} s",
            f"{row['peer_seconds']:.3g} s",
            " ".join([formats.times(row["speedup"]), *([_interval(row)] if row.get("speedup_interval") else [])]),
            f"{row['memory_ratio']:.2f}",
        ]
        for row in rows
    ]
    return formats.table(head, lines)
