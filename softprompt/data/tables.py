"""CSV and TSV to rows: how the file is encoded, what stands between its cells, and each row with its place."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..types import Notice
from .json_files import Found, is_no_text

csv.field_size_limit(1 << 24)  # a cell may hold a document
_SIGNS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_ROWS = 200  # that are looked at for what stands between cells
_AGREE = 0.5  # share of rows that must have as many cells as the header for vertical bars to stand between them
_FOREIGN = 0.3  # share of letters outside ASCII that no Western language reaches
_NO_WESTERN = frozenset(b"\x81\x8d\x8f\x90\x9d\xff")
"""Bytes that cp1252 does not define; and its ÿ, which hardly a text holds and many a file that is none."""


def as_utf8(path: Path, data: bytes) -> bytes:
    """Without a byte order mark; a file that begins with UTF-16's is UTF-16 (as Excel writes "Unicode text").

    Raises:
        DataError: it is not what it begins as, or holds NUL characters in its first line.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            data = data.decode("utf-16").encode()
        except UnicodeError:
            raise DataError(f"{path}: begins as UTF-16, but is not; save the file as UTF-8") from None
    if b"\0" in data.partition(b"\n")[0]:
        raise DataError(f"{path}: holds NUL characters in its first line, so it is not a text file; save it as UTF-8")
    return data.removeprefix(b"\xef\xbb\xbf")


def read_table(path: Path, data: bytes, notice: Notice) -> Iterator[Found]:
    """Rows of a CSV or, by its ending, a TSV.

    Args:
        data: the file's bytes, from `as_utf8`.
        notice: called with how it is read, if not as UTF-8 with commas.

    Raises:
        DataError: the header cannot be used.
    """
    text = _decoded(path, data, notice)
    if path.suffix.lower() == ".tsv":
        return _rows(str(path), text, "\t", quoted=_is_quoted(text))
    # what stands between quotes is a name's own
    head = re.sub(r'"[^"]*"', "", re.split(r"[\r\n]", text, maxsplit=1)[0])
    sign = _delimiter(head, text)
    if sign != ",":
        notice(f"{path}: read as a table with {_SIGNS[sign]} between its cells")
    cells = head.split(sign)
    return _rows(str(path), text, sign, spaced=len(cells) > 1 and all(cell[:1] == " " for cell in cells[1:]))


def _decoded(path: Path, data: bytes, notice: Notice) -> str:
    """As UTF-8, else as cp1252 where all of it can be; else bytes that are neither become half characters.

    Such bytes are then reported with their rows.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", errors="surrogateescape")
    if any(sign >= "\x80" and not is_no_text(sign) for sign in set(text)):  # some of it is UTF-8, so all is meant to be
        return text
    high = sum(byte >= 0x80 for byte in data)
    letters = high + sum(sign.isalpha() for sign in text)
    if not _NO_WESTERN.isdisjoint(data) or high > _FOREIGN * letters:
        return text
    line = data[: next(place for place, byte in enumerate(data) if byte >= 0x80)].count(b"\n") + 1
    notice(f"{path}:{line}: is not UTF-8; read as cp1252 (Western Windows). Save it as UTF-8 to be sure")
    return data.decode("cp1252")


def _delimiter(head: str, text: str) -> str:
    """What stands between cells: of the signs in the header the one by which most rows have as many cells as it.

    Args:
        head: the first line, without what stands in quotes.
    """
    there = [sign for sign in _SIGNS if sign in head]
    if not there or (len(there) == 1 and there[0] != "|"):
        return there[0] if there else ","
    shares = {}
    for sign in there:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign)
        try:
            sizes = [len(cells) for cells, _ in zip(reader, range(_ROWS), strict=False)]
        except csv.Error:
            sizes = []
        shares[sign] = sizes.count(sizes[0]) / len(sizes) if sizes else 0.0
    best = max(there, key=lambda sign: shares[sign])  # of equal ones the first
    return best if best != "|" or shares[best] > _AGREE else ","  # a name of one column may hold it


def _is_quoted(text: str) -> bool:
    """Whether quotes in a TSV stand round cells, or belong to the texts (by its definition a TSV has none round cells).

    They stand round cells where lines have unequal numbers of tabs. They also do where every cell with a quote looks
    like one from a CSV writer: it begins and ends with a quote, and quotes inside are doubled.
    """
    rows = [line.split("\t") for line in re.split(r"\r\n|\n|\r", text)]
    rows = rows if rows[-1] != [""] else rows[:-1]
    if len({len(row) for row in rows}) > 1:
        return True
    cells = [cell for row in rows for cell in row if '"' in cell]
    return all(
        len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "") for cell in cells
    )


def _rows(name: str, text: str, delimiter: str, quoted: bool = True, spaced: bool = False) -> Iterator[Found]:
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
