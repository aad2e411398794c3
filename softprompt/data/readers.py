"""Strict readers: every malformed row of a file is reported in one pass, as `file:line: reason`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import missing
from ..errors import DataError
from ..types import Notice, ignore_notice
from .files import read_dataset, read_file
from .formats import unify
from .json_files import Found

Check = Callable[[dict[str, Any]], "str | None"]
"""A task's check of a row's fields: None if they can be used, else what is wrong with them."""


@dataclass(frozen=True)
class Row:
    """One row: its fields, where it stands (`file.jsonl:12`), and what its loss is multiplied by (see `Example.weight`)."""

    values: dict[str, Any]
    where: str
    weight: float = 1.0


Columns = Mapping[str, "str | list[str]"]
"""Our field name → the file's column name, or several, of which the first that a row has is taken."""


def read_rows(
    source: str | Path,
    check: Check | None = None,
    columns: Columns | None = None,
    notice: Notice = ignore_notice,
    skipped: list[str] | None = None,
    reads: Collection[str] = (),
) -> list[Row]:
    """Read all rows of a file (JSONL, JSON, CSV, TSV, Parquet) or of `datasets:NAME[:CONFIG][:SPLIT]`.

    A split may be a part of one, as the package `datasets` writes it: `train[:1000]`, `train[80%:]`.

    Args:
        check: says why a row cannot be used, or None.
        columns: see `Columns`; a column may also be a field that the row's shape makes (see `formats.unify`).
        notice: called with how a file is read, if it is not UTF-8 or its cells are not separated by commas.
        skipped: if given, malformed rows are left out and listed here, as `file:line: reason`.
        reads: fields that are read; where a column is missing, those that are missing as well are named with it.

    Raises:
        DataError: missing or empty file, or malformed rows; `.problems` holds every one of them.
        MissingExtraError: Parquet or `datasets:` without their extra.
    """
    name = str(source)
    found = list(read_dataset(name) if name.startswith("datasets:") else read_file(Path(source), notice))
    return usable(found, name, check, columns, skipped, reads)


def usable(
    found: Sequence[Found],
    name: str,
    check: Check | None = None,
    columns: Columns | None = None,
    skipped: list[str] | None = None,
    reads: Collection[str] = (),
) -> list[Row]:
    """Rows that were read, with their columns renamed and their shapes brought to the fields that tasks read.

    Args:
        found: where each stands, its fields (None: they could not be read), and what is wrong with it, if anything.
        name: of where they come from.
        check, columns, skipped, reads: see `read_rows`.

    Raises:
        DataError: see `read_rows`.
    """
    rows: list[Row] = []
    told: list[tuple[str, str | None]] = []
    for where, values, problem in found:
        if values is not None:
            values, problem, misshapen = _shaped(values, columns or {}, reads)
            unfit = check(values) if check else None
            # a shape that nothing reads may be a row's own affair
            problem = problem or (misshapen if unfit or not check else None) or unfit
            if not problem:
                rows.append(Row(values, where))
        told.append((where, problem))
    if skipped is None:
        refuse(told, name)
    else:
        skipped += [f"{where}: {problem}" for where, problem in told if problem]
    if not told:
        raise DataError(f"{name}: is empty; it needs at least one row")
    return rows


def refuse(found: Sequence[tuple[str, str | None]], source: str = "", what: str = "rows") -> None:
    """Raise DataError where rows cannot be used.

    Args:
        found: where each row stands, and what is wrong with it, if anything.
        source: the file they come from.
        what: they are, where they are no rows.

    Raises:
        DataError: `problems` holds every one of them.
    """
    if problems := [f"{where}: {problem}" for where, problem in found if problem]:
        if source:
            raise DataError(f"{source}: {len(problems)} of {len(found)} rows cannot be used", problems)
        more = f"; {len(problems) - 1} more of {len(found)} {what} cannot be used either" if len(problems) > 1 else ""
        raise DataError(problems[0] + more, problems)


def _shaped(
    values: dict[str, Any], columns: Columns, reads: Collection[str]
) -> tuple[dict[str, Any], str | None, str | None]:
    """The row with its columns renamed, and what its shape stands for, before as well as after that.

    Before: a column may be one that a shape makes (`answer: fr` of {"translation": …}); after: renamed ones may make a shape
    (`prompt: question, completion: reply`). A field that is renamed over is no part of a shape before.

    Returns:
        the row, the columns that it lacks (or None), and what is wrong with its shape (or None).
    """
    found, before = unify({name: value for name, value in values.items() if name not in columns})
    if not columns:
        return found, None, before
    known = {**values, **found}
    renamed, lacking = {}, []
    for ours, theirs in columns.items():
        names = [theirs] if isinstance(theirs, str) else theirs
        there = next((name for name in names if name in known), None)
        if there is None:
            lacking.append(names)
        else:
            renamed[ours] = known[there]
    if lacking:
        lacking += [[name] for name in sorted(reads) if name not in known and name not in columns]
        return values, missing("column", lacking, map(str, known)), before
    found, after = unify({**found, **renamed})
    return found, None, before or after
