"""Run the commands of a recipe's README as they stand, and keep what came of them in its `expected.json`.

    python examples/recipes/record.py tags spans
    python -m softprompt.benchmarks.figures examples/recipes/*/README.md

The commands run in a folder of their own. Seconds are those of a processor, so they hold on a shared machine.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from softprompt import __version__
from softprompt.benchmarks.commands import commands_of

RECIPES = Path(__file__).parent
OF_100 = ("chrf", "bleu")  # metrics that are given on a scale to 100; records hold shares


def run(name: str, folder: Path) -> dict[str, Any]:
    """Run a recipe's commands in a folder, and say what the last of them measured, and what all of them took.

    Raises:
        CalledProcessError: a command failed.
    """
    shutil.copytree(RECIPES, folder / "examples" / "recipes", dirs_exist_ok=True)
    commands = commands_of((RECIPES / name / "README.md").read_text(encoding="utf-8"))
    seconds, peak = 0.0, 0
    for command in commands:
        process = subprocess.Popen(command, shell=True, cwd=folder)
        _, status, used = os.wait4(process.pid, 0)
        if code := os.waitstatus_to_exitcode(status):
            raise subprocess.CalledProcessError(code, command)
        seconds += used.ru_utime + used.ru_stime
        peak = max(peak, used.ru_maxrss)  # KiB, of the largest process
    return {**measured(commands, folder), "seconds": round(seconds), "peak_memory_mb": round(peak * 1024 / 1e6)}


def measured(commands: list[str], folder: Path) -> dict[str, Any]:
    """The metric on test rows that the last measuring command left, with its interval.

    Raises:
        LookupError: no command measured anything.
    """
    for command in reversed(commands):
        words = shlex.split(command)
        for option in ("--json", "--out"):
            if option in words and (record := _left(folder / words[words.index(option) + 1])):
                scale = 100 if record["metric"] in OF_100 else 1
                value, low, high = (number / scale for number in (record["value"], *record["interval"]))
                named = {"metric": record["metric"], "estimate": value, "low": low, "high": high}
                return {**named, "rows": record["rows"], "command": command, "seed": 0, "version": __version__}
    raise LookupError("no command of the recipe measures test rows")


def _left(place: Path) -> dict[str, Any] | None:
    """What a command left in a JSON file, a run's folder or a comparison's: metric, value, interval, rows."""
    if place.is_file():
        record: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        return record
    if (result := place / "result.json").is_file():
        tests: dict[str, Any] | None = json.loads(result.read_text(encoding="utf-8"))["metrics"].get("test")
        return tests
    if (summary := place / "summary.csv").is_file():
        with summary.open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["trained"] and row["mean"]]
        most = max(rows, key=lambda row: int(row["size"] or 0))  # the contender with the most labels
        interval = [float(most["low"]), float(most["high"])]
        return {"metric": most["metric"], "value": float(most["mean"]), "interval": interval, "rows": int(most["rows"])}
    return None


def main(names: list[str]) -> None:
    """Record the recipes of these names."""
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            record = run(name, Path(folder))
        (RECIPES / name / "expected.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print(f"{name}: {record['metric']} {record['estimate']:.3f} [{record['low']:.3f}, {record['high']:.3f}]")


if __name__ == "__main__":
    main(sys.argv[1:])
