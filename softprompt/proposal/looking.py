"""A file of rows, looked at: its columns, what they are for, its labels, and what about it should be known."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import Row, read_rows
from ..errors import DataError
from ..metrics.spans import OUTSIDE
from ..metrics.spans import label_of as span_label_of
from ..tasks.multilabel import MARKS
from ..values import composed, is_blank, text_of
from .columns import Column, columns_of, label_of
from .roles import Roles, roles_of
from .sets import read_as_several

_SENTENCE = 9  # words of a cell, which are too many for the name of a column
_RARE = 4  # rows of a label, of which too few can be learned from and measured on
_TELLING = 0.9  # share of texts that hold their own label
_FEW = 12  # labels that are listed


@dataclass(frozen=True)
class Seen:
    """What a file holds.

    Attributes:
        rows: those that can be read.
        unread: lines that cannot, each as `file:line: reason`.
        labels: of a classification, tagging or sets of labels, how many rows (or words) have each, in the order that they are
            to have.
        separator: what stands between labels where a cell holds several as one text.
        told: how the file was read, if that is not how it should be written.
        remarks: what is odd about its columns and labels, a line each.
    """

    path: Path
    rows: list[Row]
    unread: list[str]
    columns: list[Column]
    roles: Roles
    labels: dict[str, int]
    told: list[str]
    remarks: list[str]
    separator: str | None = None


def look(path: Path, text: Sequence[str] = (), label: Sequence[str] = (), kind: str | None = None) -> Seen:
    """Look at a file of rows.

    Args:
        text: columns that are read; empty: they are guessed.
        label: the column with the answer, or those of 0 and 1 for each label; empty: it is guessed.
        kind: type of the task; None: by the columns.

    Raises:
        DataError: it cannot be read, has no header, or the columns' roles are not clear.
        ConfigError: no such type.
    """
    told: list[str] = []
    unread: list[str] = []
    rows = read_rows(path, notice=told.append, skipped=unread)
    if not rows:
        raise DataError(f"{path}: none of its {len(unread)} rows can be read", unread)
    columns = columns_of(rows)
    if path.suffix.lower() in (".csv", ".tsv"):
        named = {*text, *label}
        if not named or not named <= {column.name for column in columns}:  # else the first line is known to name them
            _refuse_headless(path, columns)
    roles = roles_of(columns, text, label, kind, str(path))
    separator = None
    if roles.kind == "multilabel":
        spellings, separator = _sets(rows, columns, roles)
    else:
        spellings = _labels(rows, roles)
    to_the_letter = roles.kind == "tagging" or roles.marked
    labels = spellings if to_the_letter else _composed_alike(spellings)
    remarks = []
    if roles.kind == "classification":
        if len(labels) < 2:
            raise DataError(
                f"{path}: column {roles.answer!r} holds {', '.join(map(repr, labels)) or 'no label'}; two labels or more "
                "are needed; name another column with --label"
            )
        remarks = [*_about_labels(labels), *_giving_away(rows, columns, roles), *_telling(rows, roles)]
    if roles.kind == "multilabel":
        if not labels:
            raise DataError(f"{path}: column {roles.answer!r} holds no label; name another column with --label")
        remarks = [*_about_labels(labels), *([] if roles.marked else _without_labels(rows, roles))]
    remarks += [] if to_the_letter else _about_forms(spellings)
    return Seen(path, rows, unread, columns, roles, labels, told, remarks, separator)


def _sets(rows: Sequence[Row], columns: Sequence[Column], roles: Roles) -> tuple[dict[str, int], str | None]:
    """How many rows have each of several labels, and what stands between them in a cell."""
    if roles.marked:
        cells = {name: [label_of(row.values.get(name)) for row in rows] for name in roles.answers}
        return {name: sum(MARKS[cell.strip().lower()] for cell in own if cell) for name, own in cells.items()}, None
    column = next(one for one in columns if one.name == roles.answer)
    several = column.several or read_as_several([row.values.get(roles.answer) for row in rows])
    return _in_their_order(several.counts), several.separator


def _without_labels(rows: Sequence[Row], roles: Roles) -> list[str]:
    """Rows whose cell is empty."""
    values = [row.values.get(roles.answer) for row in rows]
    empty = sum((isinstance(value, str) and is_blank(value)) or value == [] for value in values)
    if not empty:
        return []
    return [
        f"{empty} rows have an empty {roles.answer!r}, so they have no label; remove rows that are not labelled yet"
    ]


def _refuse_headless(path: Path, columns: Sequence[Column]) -> None:
    """
    Raises:
        DataError: the first line is a row, by what stands in it.
    """
    for column in columns:
        again = column.counts.get(column.name, 0)
        if again > 1 or (again and not column.may_be_text):
            why = f"{column.name!r} stands in its column {again} times more"
        elif len(column.name.split()) >= _SENTENCE:
            why = f"{column.name[:60]!r} is a text"
        elif column.numbers and column.name.replace(".", "", 1).lstrip("-").isdigit():
            why = f"{column.name!r} is a number, as all in its column"
        else:
            continue
        names = ",".join(("text", "label", *(f"other{k}" for k in range(1, len(columns) - 1)))[: len(columns)])
        raise DataError(
            f"{path}:1: looks like a row, not like the names of the columns ({why}); write a line above it that names them, "
            f"e.g. {names}"
        )


def _labels(rows: Sequence[Row], roles: Roles) -> dict[str, int]:
    counts: Counter[str] = Counter()
    if roles.kind == "classification":
        counts.update(label for row in rows if (label := label_of(row.values.get(roles.answer))) is not None)
        return _in_their_order(counts)
    if roles.kind != "tagging":
        return {}
    for row in rows:
        counts.update(_tags(row.values.get(roles.answer)))
    order = sorted(counts, key=lambda tag: (tag != OUTSIDE, span_label_of(tag)[1] or "", tag))
    return {tag: counts[tag] for tag in order}


def _tags(value: Any) -> list[str]:
    """Tags of a row's words, or those that its entities make (`B-x`, `I-x` and `O`)."""
    items = value if isinstance(value, (list, tuple)) else []
    named = [text_of(one["label"]) for one in items if isinstance(one, dict) and isinstance(one.get("label"), str)]
    if named:
        return [OUTSIDE, *(f"{prefix}-{name}" for name in named for prefix in "BI")]
    return [text_of(one) for one in items if isinstance(one, (str, int))]


def _in_their_order(counts: Counter[str]) -> dict[str, int]:
    return {label: counts[label] for label in sorted(counts, key=_in_order)}


def _composed_alike(spellings: dict[str, int]) -> dict[str, int]:
    """How many rows have each label, where one that is written in several Unicode forms is one, in the composed form."""
    forms = Counter(map(composed, spellings))
    counts: Counter[str] = Counter()
    for label, count in spellings.items():
        counts[composed(label) if forms[composed(label)] > 1 else label] += count
    return _in_their_order(counts)


def _about_forms(spellings: dict[str, int]) -> list[str]:
    """Labels that tasks take for one although their characters differ."""
    several = [label for label, count in Counter(map(composed, spellings)).items() if count > 1]
    if not several:
        return []
    shown = ", ".join(map(repr, several[:_FEW])) + (" …" if len(several) > _FEW else "")
    return [f"labels in several Unicode forms (é as one character or as two) are read as one each: {shown}"]


def _in_order(label: str) -> tuple[bool, float, str]:
    """Numbers by what they are, texts by their letters."""
    number = label.lstrip("-").isdecimal()
    return not number, float(label) if number else 0.0, label


def _about_labels(labels: dict[str, int]) -> list[str]:
    remarks = []
    alike: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        alike[unicodedata.normalize("NFKC", label).casefold().strip()].append(label)
    for same in alike.values():
        if len(same) > 1:
            remarks.append(
                f"labels {' and '.join(map(repr, same))} differ in case or blanks only; if they are one label, write them alike"
            )
    if rare := [label for label, count in labels.items() if count < _RARE]:
        shown = ", ".join(f"{label!r} {labels[label]}" for label in rare[:_FEW]) + (" …" if len(rare) > _FEW else "")
        remarks.append(f"labels with few rows: {shown}; dev and test may have none of them, so their scores say little")
    return remarks


def _giving_away(rows: Sequence[Row], columns: Sequence[Column], roles: Roles) -> list[str]:
    """Columns each of whose values goes with one label."""
    remarks = []
    for column in columns:
        if column.name in (roles.answer, *(() if column.may_be_label else roles.fields)) or not column.may_be_label:
            continue
        beside: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            value, label = label_of(row.values.get(column.name)), label_of(row.values.get(roles.answer))
            if value is not None and label is not None:
                beside[value].add(composed(label))
        if len(beside) > 1 and all(len(found) == 1 for found in beside.values()):
            read = "leave it out of --text" if column.name in roles.fields else "it is not read"
            remarks.append(
                f"column {column.name!r} gives the label away: each of its {len(beside)} values goes with one label; {read}"
            )
    return remarks


def _telling(rows: Sequence[Row], roles: Roles) -> list[str]:
    """Whether nearly all texts name their own label."""
    holds = labelled = 0
    for row in rows:
        label = label_of(row.values.get(roles.answer))
        texts = [str(row.values.get(field, "")) for field in roles.fields]
        if label is None or len(label) < 3 or all(map(is_blank, texts)):
            continue
        labelled += 1
        holds += any(label.casefold() in text.casefold() for text in texts)
    if not labelled or holds < _TELLING * labelled:
        return []
    return [
        f"{holds} of {labelled} texts hold their own label, so they may give it away; check whether new texts will, too"
    ]
