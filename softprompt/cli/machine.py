"""`softprompt doctor` without a target: what this process runs on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from .console import out
from .outputs import tell_json

_BYTES = ("memory", "disk_free", "size")


def tell_machine(document: Path | None) -> None:
    """Show versions, processor, memory, GPU and cache, as a report of a mistake needs them."""
    from ..machine import describe

    facts = describe()
    table = Table("", "", "", show_header=False)
    for section, values in facts.items():
        for place, (name, value) in enumerate(_lines(section, values)):
            table.add_row("" if place else section, name, value, end_section=place == len(values) - 1)
    out.print(table)
    tell_json(document, facts)


def _lines(section: str, values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        yield name.replace("_", " "), _shown("size" if section == "memory" else name, value)


def _shown(name: str, value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "–"
    if isinstance(value, dict):
        sizes = name == "bundled_bases"
        return ", ".join(f"{key} {_shown('size' if sizes else key, one)}" for key, one in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value / 1e9:.1f} GB" if name in _BYTES else str(value)
