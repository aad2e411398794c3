"""Strict readers: every malformed row of a file is told in one pass, as `file:line: reason`."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import suggest
from ..errors import DataError, MissingExtraError
from .formats import flattened, is_nested, unify

Check = Callable[[dict[str, Any]], "str | None"]
SUPPORTED = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_EXTRA = "pip install 'softprompt[data]'"
csv.field_size_limit(1 << 24)  # a cell may hold a document


@dataclass(frozen=True)
class Row:
    """One row: its fields, and where it stands (`file.jsonl:12`)."""

    values: dict[str, Any]
    where: str


Found = tuple[str, "dict[str, Any] | None", "str | None"]
"""Where, the row's values or None, what is wrong or None."""


Columns = Mapping[str, "str | list[str]"]
"""Our field name → the file's column name, or several, of which the first that a row has is taken."""


def read_rows(source: str | Path, check: Check | None = None, columns: Columns | None = None) -> list[Row]:
    """Read all rows of a file (JSONL, JSON, CSV, TSV, Parquet) or of `datasets:NAME[:CONFIG][:SPLIT]`.

    A split may be a part of one, as the package `datasets` writes it: `train[:1000]`, `train[80%:]`.

    Args:
        check: says why a row cannot be used, or None.
        columns: see `Columns`; a column may also be a field that the row's shape makes (see `formats.unify`).

    Raises:
        DataError: missing or empty file, or malformed rows; `.problems` holds every one of them.
        MissingExtraError: Parquet or `datasets:` without their extra.
    """
    name = str(source)
    found = list(_dataset(name) if name.startswith("datasets:") else _file(Path(source)))
    rows: list[Row] = []
    problems: list[str] = []
    for where, values, problem in found:
        if values is not None:
            values, problem = _shaped(values, columns) if columns else unify(values)
            problem = problem or (check(values) if check else None)
        if problem is None and values is not None:
            rows.append(Row(values, where))
        else:
            problems.append(f"{where}: {problem}")
    if problems:
        raise DataError(f"{name}: {len(problems)} of {len(found)} rows cannot be used", problems)
    if not rows:
        raise DataError(f"{name}: is empty; it needs at least one row")
    return rows


def _shaped(values: dict[str, Any], columns: Columns) -> tuple[dict[str, Any], str | None]:
    """The row with its columns renamed, and what its shape stands for, before as well as after that.

    Before: a column may be one that a shape makes (`answer: fr` of {"translation": …}); after: renamed ones may make a shape
    (`prompt: question, completion: reply`). A field that is renamed over is no part of a shape before.
    """
    found, problem = unify({name: value for name, value in values.items() if name not in columns})
    if problem is not None:
        return found, problem
    known = {**values, **found}
    renamed = {}
    for ours, theirs in columns.items():
        names = [theirs] if isinstance(theirs, str) else theirs
        there = next((name for name in names if name in known), None)
        if there is None:
            return values, f"missing column {' or '.join(map(repr, names))}{suggest(names[0], map(str, known))}"
        renamed[ours] = known[there]
    return unify({**found, **renamed})


def _file(path: Path) -> Iterator[Found]:
    suffix = path.suffix.lower()
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected a file ({', '.join(SUPPORTED)})")
    if not path.exists():
        near = suggest(path.name, [item.name for item in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise DataError(f"{path}: no such file{near if 'did you mean' in near else ''}")
    if suffix not in SUPPORTED:
        raise DataError(f"{path}: files of type {suffix or '(none)'!r} are not read; use one of {', '.join(SUPPORTED)}")
    if suffix == ".parquet":
        return _parquet(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise DataError(f"{path}: is empty; it needs at least one row")
    if suffix in (".jsonl", ".ndjson"):
        return _jsonl(str(path), data)
    if suffix == ".json":
        return _json(str(path), data)
    return _csv(str(path), data, "\t" if suffix == ".tsv" else ",")


def _jsonl(name: str, data: bytes) -> Iterator[Found]:
    lines = data.split(b"\n")
    if not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        where = f"{name}:{number}"
        try:
            yield where, _object(line.decode("utf-8")), None
        except UnicodeDecodeError as error:
            yield where, None, f"not valid UTF-8 (byte {error.start + 1}); save the file as UTF-8"
        except (ValueError, RecursionError) as error:
            yield where, None, str(error) if line.strip() else "the line is empty"


def _json(name: str, data: bytes) -> Iterator[Found]:
    try:
        items = json.loads(_text(name, data), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: not valid JSON: {error}") from None
    if is_nested(items):
        try:
            yield from ((f"{name}:{place}", row, _surrogates(row)) for place, row in flattened(items))
        except KeyError as error:
            raise DataError(f"{name}: looks like SQuAD's nested JSON, but {error} is missing somewhere") from None
        except (TypeError, AttributeError):
            raise DataError(
                f"{name}: looks like SQuAD's nested JSON, but is not: expected data[].paragraphs[].qas[].answers[], all objects"
            ) from None
        return
    if not isinstance(items, list):
        raise DataError(
            f"{name}: expected a list of objects, got {type(items).__name__}; or use .jsonl, one object a line"
        )
    for number, item in enumerate(items, 1):
        where = f"{name}[{number}]"
        problem = _surrogates(item) if isinstance(item, dict) else f"expected an object, got {type(item).__name__}"
        yield where, None if problem else item, problem


def _csv(name: str, data: bytes, delimiter: str) -> Iterator[Found]:
    # reading line by line would cut quoted newlines; the reader's own count gives the line where a row ends
    # what is not UTF-8 becomes half characters, which `_surrogates` then finds in their rows
    text = data.decode("utf-8", errors="surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    head: list[str] = []
    while True:
        begins = reader.line_num + 1
        where = f"{name}:{begins}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield where, None, f"not valid CSV: {error}"
            continue
        if not head:
            head = [cell.strip() for cell in cells]
            if any(map(_is_no_text, head)):
                raise DataError(f"{where}: not valid UTF-8; save the file as UTF-8")
            if len(set(head)) < len(head) or not all(head):
                raise DataError(f"{where}: the header names a column twice or not at all: {', '.join(map(repr, head))}")
        elif not cells:
            yield where, None, "the line is empty"
        elif len(cells) != len(head):
            yield where, None, f"{len(cells)} cells, the header has {len(head)}"
        elif any(map(_is_no_text, cells)):
            yield where, None, "not valid UTF-8; save the file as UTF-8"
        else:
            yield where, dict(zip(head, cells, strict=True)), None


def _parquet(path: Path) -> Iterator[Found]:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{path}: Parquet needs pyarrow: {_EXTRA}") from error
    try:
        items = parquet.read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
    for number, item in enumerate(items, 1):
        yield f"{path}:{number}", item, None


def _dataset(name: str) -> Iterator[Found]:
    _, _, rest = name.partition(":")
    parts = re.split(r":(?![^\[]*\])", rest)  # not the colon of a part of a split
    if not parts[0] or len(parts) > 3:
        raise DataError(f"{name}: expected datasets:NAME, datasets:NAME:SPLIT or datasets:NAME:CONFIG:SPLIT")
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{name}: needs the package datasets: {_EXTRA}") from error
    config = parts[1] if len(parts) == 3 else None
    part = parts[-1] if len(parts) > 1 else "train"
    try:
        loaded = datasets.load_dataset(parts[0], config, split=part)
    except Exception as error:  # the library raises a dozen kinds, from its own and from its network stack
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{name}: cannot be loaded ({reason})") from error
    features = loaded.features
    for number, item in enumerate(loaded):
        row = {key: _label_name(features.get(key), value) for key, value in dict(item).items()}
        yield f"{name}[{number}]", row, None


def _label_name(feature: Any, value: Any) -> Any:
    """Class labels come as numbers; their names are what a task file speaks of."""
    names = getattr(feature, "names", None)
    return names[value] if names and isinstance(value, int) and 0 <= value < len(names) else value


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(value, dict):
        raise ValueError(f'expected an object such as {{"text": …}}, got {type(value).__name__}')
    if problem := _surrogates(value):
        raise ValueError(problem)
    return value


def _surrogates(value: dict[str, Any]) -> str | None:
    """Half a character (`\\ud800`) is valid JSON, but no text that could be tokenized or written."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return "holds half of a surrogate pair (such as \\ud800), which is no text"
    return None


def _is_no_text(cell: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in cell)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in names if names.count(key) > 1)!r} stands twice")
    return result


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{name}:{line}: not valid UTF-8; save the file as UTF-8", [f"{name}:{line}: not valid UTF-8"]
        ) from None
