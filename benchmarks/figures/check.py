"""What is wrong with the figures of a page, a line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from softprompt.benchmarks.figures.marks import figures, unmarked
from softprompt.errors import DataError


def complaints(page: Path, values: Mapping[str, str]) -> Iterator[str]:
    """`FILE:LINE: what is wrong` of each figure that differs from its record, has none, or has no mark."""
    text = page.read_text(encoding="utf-8")
    for figure in figures(text):
        try:
            value = values[figure.key]
        except DataError as error:
            yield f"{page}:{figure.line}: {error}"
            continue
        if value != figure.text:
            yield f"{page}:{figure.line}: {figure.key} reads {_first(figure.text)!r}, its record {_first(value)!r}"
    for line, shown in unmarked(text):
        yield f"{page}:{line}: {shown!r} is read from no record; mark it, or put a setting in backticks"


def _first(text: str) -> str:
    """Enough of a table to know it by."""
    return text if len(text) <= 80 else f"{text[:77]}…"
