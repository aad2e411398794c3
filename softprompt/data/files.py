"""Files to rows, each with its place (`file:line`) and what is wrong with it; what a row must hold is not known here."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from ..config import suggest
from ..errors import DataError, MissingExtraError
from ..types import Notice, ignore_notice
from ..values import plain
from .json_files import Found, json_document, json_lines
from .tables import as_utf8, read_table

SUPPORTED = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_EXTRA = "pip install 'softprompt[data]'"


def check_file(path: Path) -> str:
    """The ending of a file of rows.

    Raises:
        DataError: it is not there, or nothing that is read.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected a file ({', '.join(SUPPORTED)})")
    if not path.exists():
        near = suggest(path.name, [item.name for item in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise DataError(f"{path}: no such file{near if 'did you mean' in near else ''}")
    # `/dev/stdin` is what the shell has put there; a pipe without an ending (`<(zcat …)`) holds JSON lines
    suffix = (path.suffix or path.resolve().suffix).lower() or (".jsonl" if path.is_fifo() else "")
    if suffix not in SUPPORTED:
        advice = "save the table as CSV (UTF-8), or " if suffix in (".xlsx", ".xls", ".ods") else ""
        raise DataError(
            f"{path}: files of type {suffix or '(none)'!r} are not read; {advice}use one of {', '.join(SUPPORTED)}"
        )
    return suffix


def read_file(path: Path, notice: Notice = ignore_notice) -> Iterator[Found]:
    """All rows of a file, by its ending.

    Args:
        notice: called with how it is read, if that is not how it should be written.

    Raises:
        DataError: it cannot be read as a whole.
        MissingExtraError: Parquet without its extra.
    """
    suffix = check_file(path)
    if suffix == ".parquet":
        return _parquet(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    data = as_utf8(path, data)
    if (doubled := data.count(b"\r\r\n")) and doubled == data.count(b"\n"):  # line ends translated twice, as on Windows
        data = data.replace(b"\r\r\n", b"\r\n")
    if not data.strip():
        raise DataError(f"{path}: is empty; it needs at least one row")
    if suffix in (".jsonl", ".ndjson"):
        return json_lines(str(path), data)
    if suffix == ".json":
        return json_document(str(path), data)
    return read_table(path, data, notice)


def _parquet(path: Path) -> Iterator[Found]:
    try:
        from pyarrow import ArrowException, parquet, types
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{path}: Parquet needs pyarrow: {_EXTRA}") from error
    try:
        names = parquet.read_schema(path).names
        table = parquet.read_table(path) if len(set(names)) == len(names) else None
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
    if table is None:
        raise DataError(f"{path}: names a column twice: {', '.join(map(repr, names))}")
    return _each(
        table.num_rows,
        table.to_pylist,
        lambda place: table.slice(place, 1).to_pylist()[0],
        lambda place: f"{path}:{place + 1}",
        {field.name for field in table.schema if types.is_float32(field.type) or types.is_float16(field.type)},
    )


def _each(
    count: int,
    everything: Callable[[], Iterable[Any]],
    one: Callable[[int], Any],
    named: Callable[[int], str],
    singles: Collection[str],
) -> Iterator[Found]:
    """Rows of a table. One that cannot be decoded (a text that is not UTF-8, a year 0) is reported, and the others are
    read.

    Args:
        singles: columns of numbers in less than double precision, in which 0.1 is not 0.10000000149011612.
    """
    try:
        rows: list[Any] = list(everything())
    except Exception:  # each library raises its own kinds; the row that it is of is looked for
        rows = []
    for place in range(count):
        where = named(place)
        try:
            row = dict(rows[place] if rows else one(place))
        except Exception:
            yield where, None, "holds a value that cannot be decoded"
            continue
        yield where, {key: _written(value, key in singles) for key, value in row.items()}, None


def _written(value: Any, single: bool) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    return plain(np.float32(value)) if single and isinstance(value, float) else value


def read_dataset(name: str) -> Iterator[Found]:
    """All rows of `datasets:NAME[:CONFIG][:SPLIT]`.

    Raises:
        DataError: it cannot be loaded.
        MissingExtraError: the package `datasets` is not installed.
    """
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
        loaded = _saved(Path(parts[0]), part) or datasets.load_dataset(parts[0], config, split=part)
    except Exception as error:  # the library raises a dozen kinds, from its own and from its network stack
        told = [one for one in (error, error.__cause__) if one is not None]  # it says what, its cause why
        reasons = [(str(one).strip().splitlines() or [type(one).__name__])[0] for one in told]
        raise DataError(f"{name}: cannot be loaded ({': '.join(dict.fromkeys(reasons))})") from error
    features = loaded.features
    singles = {key for key, feature in features.items() if getattr(feature, "dtype", "") in ("float32", "float16")}
    for where, row, problem in _each(
        len(loaded), lambda: loaded, loaded.__getitem__, lambda place: f"{name}[{place}]", singles
    ):
        named = None if row is None else {key: label_name(features.get(key), value) for key, value in row.items()}
        yield where, named, problem


def _saved(folder: Path, part: str) -> Any:
    """What `save_to_disk` wrote into a folder: a split, or all of them by name; None where it wrote nothing."""
    import datasets

    if (folder / "state.json").is_file() and part == "train":
        return datasets.load_from_disk(str(folder))
    inner = folder / part
    return datasets.load_from_disk(str(inner)) if (folder / "dataset_dict.json").is_file() and inner.is_dir() else None


def label_name(feature: Any, value: Any) -> Any:
    """Class labels come as numbers; their names are what a task file speaks of. -1 says that there is none."""
    names = getattr(feature, "names", None)
    if not names or not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None if value == -1 else value
