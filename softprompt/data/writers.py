"""Rows written in the form that a file's ending names, so that what was read as a table comes back as one."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..errors import DataError, MissingExtraError
from ..storage import atomic_file, check_writable

Values = dict[str, Any]
ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


def check_output(path: Path) -> None:
    """Refuse a file that rows could not be written into, before the work whose result it is to hold.

    Raises:
        DataError: an ending that we do not write.
        MissingExtraError: Parquet without its extra.
        SoftpromptError: nothing can be written there.
    """
    check_writable(path)
    if path.suffix.lower() not in ENDINGS:
        raise DataError(f"{path}: files of type {path.suffix or '(none)'!r} are not written; use {', '.join(ENDINGS)}")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"{path}: Parquet needs pyarrow: pip install 'softprompt[data]'") from error


def check_rows(path: Path, rows: Sequence[Values]) -> None:
    """Refuse rows that this form cannot hold.

    Raises:
        DataError: a column of a Parquet file that would hold values of several types.
    """
    if path.suffix.lower() == ".parquet":
        _table(path, rows)


def write_rows(path: Path, rows: Sequence[Values]) -> None:
    """Write rows as JSON lines, a JSON list, CSV, TSV or Parquet. Tables have the columns of all rows, in their order.

    Raises:
        DataError: see `check_output`, `check_rows`.
        SoftpromptError: it cannot be written.
    """
    check_output(path)
    ending = path.suffix.lower()
    table = _table(path, rows) if ending == ".parquet" else None
    with atomic_file(path) as temporary:
        if ending == ".parquet":
            from pyarrow import parquet

            parquet.write_table(table, temporary)
        elif ending in (".csv", ".tsv"):
            with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                # csv puts a cell with "\r" into quotes only where that is part of what ends a line
                lines_of = SimpleNamespace(write=lambda text: file.write(text.removesuffix("\r\n") + "\n"))
                writer = csv.writer(lines_of, delimiter="\t" if ending == ".tsv" else ",", lineterminator="\r\n")
                writer.writerow(names := columns(rows))
                writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
        else:
            lines = [line(row) for row in rows]
            text = "[\n" + ",\n".join(lines) + "\n]\n" if ending == ".json" else "".join(f"{one}\n" for one in lines)
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def line(row: Values) -> str:
    """A row as one line of JSON."""
    return json.dumps(plain(row), ensure_ascii=False, allow_nan=False)


def columns(rows: Sequence[Values]) -> list[str]:
    """The names of all rows' fields, in their order."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _cell(value: Any) -> str:
    value = plain(value)
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def plain(value: Any) -> Any:
    """As JSON can hold it: a number that is none is null, a date is its ISO text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _table(path: Path, rows: Sequence[Values]) -> Any:
    import pyarrow

    try:
        arrays = {name: pyarrow.array([row.get(name) for row in rows]) for name in columns(rows)}
    except (pyarrow.ArrowException, ValueError, TypeError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: a column holds what Parquet cannot hold in one ({reason}); write .jsonl") from None
    return pyarrow.table(arrays)
