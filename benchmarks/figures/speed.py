"""Figures of `bench speed`: `speed/CASE/speedup` and `/interval`, from `results/speed/rows.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from softprompt.benchmarks.figures import formats


def values(root: Path) -> Iterator[tuple[str, str]]:
    """(key, text) of each case that was measured."""
    path = root / "benchmarks/results/speed/rows.json"
    if not path.is_file():
        return
    for name, entry in json.loads(path.read_text(encoding="utf-8"))["rows"].items():
        row = entry["row"]
        yield f"speed/{name}/speedup", formats.times(row["speedup"])
        if row.get("speedup_interval"):
            low, high = row["speedup_interval"]
            yield f"speed/{name}/interval", f"[{formats.times(low)}, {formats.times(high)}]"
