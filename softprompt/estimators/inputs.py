"""X, y and weights as a caller has them: read, and checked as a whole, in one pass."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import suggest
from ..data import rows_of
from ..errors import InputError
from ..values import is_blank, kind, plain

TEXT = "text"
"""The field of a row that is one text."""
_TAKEN = frozenset(
    ("label", "labels", "answer", "answers", "artifact", "tags", "entities", "true", "false", "none", "loop")
)
"""Names that mean something in a row or a template."""
_CUT = 20  # problems that an error holds


@dataclass(frozen=True)
class Table:
    """X as rows.

    Attributes:
        columns: names as X has them; None where each row is one text.
        named: they are X's own names, not numbers of places.
        rows: of each, its values by column (by `TEXT` where it is one text).
    """

    columns: tuple[str, ...] | None
    named: bool
    rows: list[dict[str, Any]]


def read_table(X: Any, who: str, name: str = "X") -> Table:
    """X as rows of texts.

    Args:
        who: the estimator, for messages.
        name: of the argument.

    Raises:
        InputError: it is no table and no list of texts, is empty, or holds something other than texts; the message
            names each value.
    """
    items = read_items(X, name)
    if not items:
        raise InputError(f"{name} is empty (0 samples); {who} needs a minimum of 1 text")
    first = items[0]
    if hasattr(first, "items"):
        table = _of_mappings(items, name)
    elif isinstance(first, (list, tuple)):
        table = _of_lists(items, name)
    else:
        table = Table(None, False, [{TEXT: value} for value in items])
    _refuse_other(table, who, name)
    return table


def read_items(X: Any, name: str) -> list[Any]:
    """X as a list of rows, whatever holds them.

    Raises:
        InputError: it holds none.
    """
    if isinstance(X, Mapping) and not hasattr(X, "toarray"):  # columns, as pandas takes them
        columns = {str(key): read_items(value, f"{name}[{key!r}]") for key, value in X.items()}
        if len({len(column) for column in columns.values()}) > 1:
            raise InputError(f"{name}: columns have different lengths; give each a value in each row")
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if X is None or isinstance(X, (str, bytes)):
        raise InputError(
            f"{name} is {kind(X)}; expected a list of texts, a DataFrame, a datasets.Dataset or a list of dicts"
        )
    if getattr(getattr(X, "dtype", None), "kind", "") == "c":
        raise InputError(f"Complex data not supported: {name} holds complex numbers; give texts")
    return rows_of(X, name)


def _of_mappings(items: list[Any], name: str) -> Table:
    columns: dict[str, None] = {}
    for place, row in enumerate(items):
        if not hasattr(row, "items"):
            raise InputError(f"{name}[{place}] is {kind(row)}, the rows before it are dicts; give all rows one form")
        columns.update(dict.fromkeys(map(str, row)))
    rows = [{str(key): value for key, value in row.items()} for row in items]
    numbered = all(re.fullmatch(r"x[0-9]+", column) for column in columns)
    return _wide_enough(Table(tuple(columns), not numbered, rows), name)


def _of_lists(items: list[Any], name: str) -> Table:
    if len({len(row) if isinstance(row, (list, tuple)) else -1 for row in items}) > 1:
        raise InputError(f"{name}: rows have different lengths; give each a value in each column")
    rows = [{f"x{place}": value for place, value in enumerate(row)} for row in items]
    return _wide_enough(Table(tuple(rows[0]), False, rows), name)


def _wide_enough(table: Table, name: str) -> Table:
    if not table.columns:
        shape = f"(shape=({len(table.rows)}, 0))"
        raise InputError(f"{name} has 0 feature(s) {shape} while a minimum of 1 is required; give a column of texts")
    return table


def _refuse_other(table: Table, who: str, name: str) -> None:
    problems = [
        told for place, row in enumerate(table.rows) for told in _problems(row, table.columns, f"{name}[{place}")
    ]
    refuse_all(problems, len(table.rows), "rows")
    if no_text(table):
        raise InputError(f"{name} holds numbers and no text, and {who} reads texts; write them as text")


def _problems(row: dict[str, Any], columns: tuple[str, ...] | None, where: str) -> Iterable[str]:
    """Why values of a row are no texts, each with its place, of which `where` is the beginning."""
    if columns is None:
        value = row[TEXT]
        if type(value) is str and not is_blank(value):
            return
        value = plain(value)
        if isinstance(value, str):
            if is_blank(value):
                yield f"{where}] is an empty text"
        elif (found := kind(value)) == "a number":
            yield f"{where}] is a number; expected text. Reshape your data if this is one row of a table"
        else:
            yield f"{where}] is {found}; expected text"
        return
    for column in columns:
        if column not in row:
            yield f"{where}] has no {column!r}"
        elif (found := kind(row[column])) not in ("a text", "a number", "true", "false"):
            yield f"{where}, {column!r}] is {found}; expected text"
    if all(isinstance(value, str) and is_blank(value) for value in row.values()):
        yield f"{where}] is empty in all columns"


def no_text(table: Table) -> bool:
    """Whether numbers are all that there is; a table may hold them beside texts."""
    return not any(isinstance(value, str) for row in table.rows for value in row.values())


def refuse_all(problems: Sequence[str], count: int, what: str) -> None:
    """
    Raises:
        InputError: there are problems; `problems` holds the first of them.
    """
    if problems:
        more = f"; {len(problems) - 1} more of {count} {what} cannot be used either" if len(problems) > 1 else ""
        raise InputError(problems[0] + more, list(problems[:_CUT]))


def field_names(columns: Sequence[str]) -> dict[str, str]:
    """Column → the name of its field in the template, a Python identifier; different ones for different columns."""
    fields: dict[str, str] = {}
    for column in columns:
        name = re.sub(r"\W+", "_", column).strip("_") or "field"
        name = f"_{name}" if name[0].isdigit() else name
        while keyword.iskeyword(name) or name.lower() in _TAKEN or name in fields.values():
            name += "_"
        fields[column] = name
    return fields


def same_length(X: Sized, y: Sized, who: str) -> None:
    """
    Raises:
        InputError: in scikit-learn's words.
    """
    if len(X) != len(y):
        raise InputError(
            f"Found input variables with inconsistent numbers of samples: [{len(X)}, {len(y)}]; {who} needs one answer a row"
        )


def listed(y: Any, who: str) -> list[Any]:
    """The answers of rows as a list, whatever holds them.

    Raises:
        InputError: there are none.
    """
    if y is None:
        raise InputError(f"{who} requires y to be passed, but the target y is None")
    if isinstance(y, (str, bytes)):
        raise InputError(f"y is {kind(y)}; expected an answer for each row")
    values = rows_of(y, "y")
    return [next(iter(row.values())) if hasattr(row, "items") and len(row) == 1 else row for row in values]


def read_weights(sample_weight: Any, class_weight: Any, labels: np.ndarray | None, count: int) -> np.ndarray:
    """What each row counts for, [count]: its own weight, times that of its class.

    Raises:
        InputError: another number of weights, one that is negative or no number, or all of them zero.
    """
    weights = np.ones(count)
    if sample_weight is not None:
        try:
            given = np.asarray(sample_weight, dtype=float)
        except (TypeError, ValueError):
            raise InputError("sample_weight holds something else than numbers; give one number a row") from None
        if given.ndim > 1:
            raise InputError(f"Sample weights must be 1D array or scalar, got {given.ndim} dimensions; give one a row")
        if given.ndim and len(given) != count:
            raise InputError(f"sample_weight.shape == {given.shape}, expected ({count},); give one number a row")
        weights = weights * given
    if class_weight is not None and labels is not None:
        weights = weights * _of_classes(class_weight, labels)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError("Sample weights are negative or not finite; give numbers from 0 on")
    if not weights.any():
        raise InputError(
            "Sample weights are all zero, so nothing is left to learn from; give some rows a weight above 0"
        )
    return weights


def _of_classes(class_weight: Any, labels: np.ndarray) -> np.ndarray:
    classes, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if isinstance(class_weight, str) and class_weight == "balanced":
        return (len(labels) / (len(classes) * counts))[places]
    if not isinstance(class_weight, Mapping):
        raise InputError(f"class_weight is {class_weight!r}; expected 'balanced', or a dict of label → weight")
    known = classes.tolist()
    if absent := [label for label in class_weight if plain(label) not in known]:
        raise InputError(
            f"class_weight names {absent[0]!r}, which is no label of y{suggest(str(absent[0]), map(str, known))}"
        )
    given = {plain(label): weight for label, weight in class_weight.items()}
    return np.array([float(given.get(label, 1.0)) for label in known])[places]
