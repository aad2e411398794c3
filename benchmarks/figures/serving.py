"""Figures of what serving costs: `serving/table`, from `results/serving/rows.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from softprompt.benchmarks.figures import formats


def values(root: Path) -> Iterator[tuple[str, str]]:
    """(key, text) of the record, if there is one."""
    path = root / "benchmarks/results/serving/rows.json"
    if path.exists():
        yield "serving/table", _table(json.loads(path.read_text(encoding="utf-8")))


def _table(record: dict[str, Any]) -> str:
    asked, swapped, served = record["asking"], record["swapping"], record["serving"]
    many, tokens = record["artifacts"], record["document_tokens"]
    lines = [
        (f"1 artifact on a new document of {tokens:,} tokens", _ms(asked["new_one"])),
        (f"{many} artifacts on it", f"{_ms(asked['new_all'])}, {asked['all_to_one']:.2f} times as long"),
        ("each further artifact", f"{100 * asked['further_to_one']:.1f} % of the first"),
        (f"{many} artifacts on a document that was read before", _ms(asked["kept_all"])),
        ("1 artifact on it", _ms(asked["kept_one"])),
        (
            "another artifact that is loaded / that lies on the disk",
            f"{_ms(swapped['memory'])} / {_ms(swapped['disk'])}",
        ),
        ("one client: a row in this process", _ms(served["one_client_process"])),
        ("one client: the same over HTTP", _ms(served["one_client_server"])),
        ("32 clients, rows a second", f"{served['rows_per_second_server']:.1f}"),
        ("batches of 32 rows in this process, rows a second", f"{served['rows_per_second_process']:.1f}"),
        ("server to process", f"{served['server_to_process']:.2f}"),
        ("32 clients, median and 99 % of the requests", f"{_ms(served['p50'])}, {_ms(served['p99'])}"),
    ]
    return formats.table(["what", "measured"], [list(line) for line in lines])


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2g} ms" if seconds < 0.01 else f"{1000 * seconds:,.0f} ms"
