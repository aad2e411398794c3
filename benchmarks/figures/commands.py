"""Figures of the pages' own commands: `commands/PAGE/NAME/WHAT`, from `results/commands/PAGE.json`.

NAME is the command's verb and its run folder's or file's name: `softprompt train … --out runs/movies` is `train-movies`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from softprompt.benchmarks.figures import formats


def values(root: Path) -> Iterator[tuple[str, str]]:
    """(key, text) of each command that ended well."""
    for path in sorted((root / "benchmarks/results/commands").glob("*.json")):
        for entry in json.loads(path.read_text(encoding="utf-8"))["commands"]:
            if entry["exit_code"] == 0:
                yield from _command(f"commands/{path.stem}/{name_of(entry['command'])}", entry)


def _command(key: str, entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield f"{key}/seconds", formats.seconds(entry["seconds"])
    for split, metric in entry.get("metrics", {}).items():
        if metric["metric"] == "accuracy":
            yield f"{key}/{split}", formats.percent(metric["value"])
            yield f"{key}/{split}-interval", formats.interval(*metric["interval"])


def name_of(command: str) -> str:
    """`softprompt try tickets.csv --html ways.html` → try-tickets; with `--out`, its last folder."""
    words = shlex.split(command)
    verbs = [word for word in words if not word.startswith("-")]
    verb = verbs[verbs.index("softprompt") + 1] if "softprompt" in verbs else verbs[1]
    named = words[words.index("--out") + 1] if "--out" in words else next(iter(verbs[verbs.index(verb) + 1 :]), verb)
    return f"{verb}-{Path(named).stem}"
