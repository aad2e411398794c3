"""Figures of the recipes: `recipes/NAME/WHAT`, from `examples/recipes/NAME/expected.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from softprompt.benchmarks.figures import formats

SHOWN: dict[str, Callable[[float], str]] = {
    "seconds": formats.seconds,
    "rows": formats.count,
    "peak_memory_mb": lambda value: formats.size(value * 1e6),
}


def values(root: Path) -> Iterator[tuple[str, str]]:
    """(key, text) of each recipe: `estimate`, `interval`, `seconds`, `rows`, `peak_memory_mb`."""
    for path in sorted((root / "examples/recipes").glob("*/expected.json")):
        record, key = json.loads(path.read_text(encoding="utf-8")), f"recipes/{path.parent.name}"
        yield f"{key}/metric", record["metric"]
        yield f"{key}/estimate", formats.percent(record["estimate"])
        if record.get("low") is not None:
            yield f"{key}/interval", formats.interval(record["low"], record["high"])
        for name, shown in SHOWN.items():
            if record.get(name) is not None:
                yield f"{key}/{name}", shown(record[name])
