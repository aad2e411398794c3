"""Files to rows, each with its place (`file:line`) and what is wrong with it; what a row must hold is not known here."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from ..config import suggest
from ..errors import DataError, MissingExtraError
from ..values import plain
from .json_files import Found, is_no_text, json_document, json_lines

SUPPORTED = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_EXTRA = "pip install 'softprompt[data]'"
csv.field_size_limit(1 << 24)  # a cell may hold a document


def read_file(path: Path) -> Iterator[Found]:
    """All rows of a file, by its ending.

    Raises:
        DataError: it cannot be read as a whole.
        MissingExtraError: Parquet without its extra.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected a file ({', '.join(SUPPORTED)})")
    if not path.exists():
        near = suggest(path.name, [item.name for item in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise DataError(f"{path}: no such file{near if 'did you mean' in near else ''}")
    # `/dev/stdin` is what the shell has put there; a pipe without an ending (`<(zcat …)`) holds JSON lines
    suffix = (path.suffix or path.resolve().suffix).lower() or (".jsonl" if path.is_fifo() else "")
    if suffix not in SUPPORTED:
        raise DataError(f"{path}: files of type {suffix or '(none)'!r} are not read; use one of {', '.join(SUPPORTED)}")
    if suffix == ".parquet":
        return _parquet(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    data = _as_utf8(path, data)
    if (doubled := data.count(b"\r\r\n")) and doubled == data.count(b"\n"):  # line ends translated twice, as on Windows
        data = data.replace(b"\r\r\n", b"\r\n")
    if not data.strip():
        raise DataError(f"{path}: is empty; it needs at least one row")
    if suffix in (".jsonl", ".ndjson"):
        return json_lines(str(path), data)
    if suffix == ".json":
        return json_document(str(path), data)
    # what is not UTF-8 becomes half characters, which are then found in their rows
    text = data.decode("utf-8", errors="surrogateescape")
    if suffix == ".tsv":
        return _table(str(path), text, "\t", quoted=_is_quoted(text))
    # what stands between quotes is a name's own
    head = re.sub(r'"[^"]*"', "", re.split(r"[\r\n]", text, maxsplit=1)[0])
    sign = next((sign for sign in ",;\t" if sign in head), ",")
    cells = head.split(sign)
    return _table(str(path), text, sign, spaced=len(cells) > 1 and all(cell[:1] == " " for cell in cells[1:]))


def _as_utf8(path: Path, data: bytes) -> bytes:
    """Without a byte order mark; a file that begins with UTF-16's is UTF-16 (as Excel writes "Unicode text")."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            data = data.decode("utf-16").encode()
        except UnicodeError:
            raise DataError(f"{path}: begins as UTF-16, but is not; save the file as UTF-8") from None
    if b"\0" in data.partition(b"\n")[0]:
        raise DataError(f"{path}: holds NUL characters in its first line, as no text does; save it as UTF-8")
    return data.removeprefix(b"\xef\xbb\xbf")


def _is_quoted(text: str) -> bool:
    """Whether quotes in a TSV stand round cells, or belong to the texts (by its definition a TSV has none round cells).

    Round cells, where lines have unequal numbers of tabs, or where every cell with a quote is one that a writer of CSV quotes:
    it begins and ends with one, and those inside are doubled.
    """
    rows = [line.split("\t") for line in re.split(r"\r\n|\n|\r", text)]
    rows = rows if rows[-1] != [""] else rows[:-1]
    if len({len(row) for row in rows}) > 1:
        return True
    cells = [cell for row in rows for cell in row if '"' in cell]
    return all(
        len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "") for cell in cells
    )


def _table(name: str, text: str, delimiter: str, quoted: bool = True, spaced: bool = False) -> Iterator[Found]:
    """Rows of a CSV or TSV under its header.

    Args:
        quoted: quotes stand round cells.
        spaced: a blank stands behind every delimiter and is no part of the next cell, whose quotes begin behind it.
    """
    # reading line by line would cut quoted newlines; the reader's own count gives the line where a row ends
    style: dict[str, Any] = {"skipinitialspace": spaced} if quoted else {"quoting": csv.QUOTE_NONE}
    # lines are nothing that stand empty at the end
    reader = csv.reader(io.StringIO(text.rstrip("\r\n"), newline=""), delimiter=delimiter, strict=True, **style)
    head: list[str] = []
    while True:
        where = f"{name}:{reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield where, None, f"not valid CSV: {error}"
            continue
        if not head:
            head = [cell.strip() for cell in cells]
            if any(map(is_no_text, head)):
                raise DataError(f"{where}: not valid UTF-8; save the file as UTF-8")
            if len(set(head)) < len(head) or not all(head):
                raise DataError(f"{where}: the header names a column twice or not at all: {', '.join(map(repr, head))}")
        elif not cells:
            yield where, None, "the line is empty"
        elif len(cells) != len(head):
            yield where, None, f"{len(cells)} cells, the header has {len(head)}"
        elif any(map(is_no_text, cells)):
            yield where, None, "not valid UTF-8; save the file as UTF-8"
        else:
            yield where, dict(zip(head, cells, strict=True)), None


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
    """Rows of a table. One that cannot be decoded (a text that is not UTF-8, a year 0) is told, and the others are read.

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
        named = None if row is None else {key: _label_name(features.get(key), value) for key, value in row.items()}
        yield where, named, problem


def _saved(folder: Path, part: str) -> Any:
    """What `save_to_disk` wrote into a folder: a split, or all of them by name; None where it wrote nothing."""
    import datasets

    if (folder / "state.json").is_file() and part == "train":
        return datasets.load_from_disk(str(folder))
    inner = folder / part
    return datasets.load_from_disk(str(inner)) if (folder / "dataset_dict.json").is_file() and inner.is_dir() else None


def _label_name(feature: Any, value: Any) -> Any:
    """Class labels come as numbers; their names are what a task file speaks of. -1 says that there is none."""
    names = getattr(feature, "names", None)
    if not names or not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None if value == -1 else value
