"""Figures of `bench compare`: `SUITE/CONTENDER[@ROWS][>TEST]/WHAT`, from `results/SUITE/summary.csv` and its runs."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from softprompt.benchmarks.figures import formats


def values(root: Path) -> Iterator[tuple[str, str]]:
    """(key, text) of every committed suite. `@ROWS` and `>TEST` stand where a suite has several of them."""
    for summary in sorted((root / "benchmarks/results").glob("*/summary.csv")):
        with summary.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        sizes = {line["size"] for line in lines if line["size"]}
        tests = {line["test"] for line in lines}
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(summary.parent.glob("runs/*.json"))]
        spent = _processor_seconds(runs)
        for line in lines:
            name = line["contender"]
            if len(sizes) > 1 and line["table_size"]:
                name += f"@{line['table_size']}"
            if len(tests) > 1:
                name += f">{line['test']}"
            key = f"{summary.parent.name}/{name}"
            yield from _row(key, line)
            if (own := spent.get((line["contender"], line["size"]))) is not None:
                yield f"{key}/processor-time", formats.seconds(mean(own))
        yield f"{summary.parent.name}/seconds", formats.seconds(sum(run["seconds_in_all"] for run in runs))
        if len(sizes) == len(tests) == 1:
            yield f"{summary.parent.name}/table", _table(lines, spent)


def _row(key: str, line: dict[str, str]) -> Iterator[tuple[str, str]]:
    yield f"{key}/accuracy", formats.percent(float(line["mean"]))
    yield f"{key}/interval", formats.interval(float(line["low"]), float(line["high"]))
    if line["table_size"]:
        yield f"{key}/labels", line["table_size"]
    yield f"{key}/trained", formats.count(float(line["trained"]))
    yield f"{key}/size", formats.size(float(line["artifact_bytes"]))
    yield f"{key}/seconds", formats.seconds(float(line["working_seconds"]))
    if line["difference"]:
        yield f"{key}/difference", formats.points(float(line["difference"]))
        low, high = float(line["difference_low"]), float(line["difference_high"])
        yield f"{key}/difference-interval", f"[{formats.points(low)}, {formats.points(high)}]"
        yield f"{key}/verdict", line["verdict"]


def _processor_seconds(runs: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[float]]:
    """By contender and labelled rows, what the reported runs have spent of the processor."""
    spent: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in runs:
        if record["stage"] == "final" and record["status"] == "done" and record.get("cpu_seconds") is not None:
            place = record["place"]
            spent[place["contender"], str(place["size"] or "")].append(record["cpu_seconds"])
    return spent


def _table(lines: list[dict[str, str]], spent: dict[tuple[str, str], list[float]]) -> str:
    """One table of a suite that has one task, one number of rows and one test."""
    head = ["method", f"{lines[0]['metric']}, 95 % interval", "numbers learned", "artifact", "processor time of a run"]
    shown = [
        [
            line["contender"],
            f"{formats.percent(float(line['mean']))} {formats.interval(float(line['low']), float(line['high']))}",
            formats.count(float(line["trained"])),
            formats.size(float(line["artifact_bytes"])),
            formats.seconds(mean(spent[line["contender"], line["size"]])),
        ]
        for line in lines
        if (line["contender"], line["size"]) in spent
    ]
    return formats.table(head, shown)
