"""Sets of labels as a caller has them: a set for each row, or a matrix with a column of 0 and 1 for each label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from ..data import Row
from ..errors import InputError
from ..values import is_blank, kind, plain, shown, text_of
from .inputs import Table, listed, refuse_all

SETS = "sets"
_COLLECTIONS = (list, tuple, set, frozenset)
_INSTEAD = "give each label a column of 0 and 1, or fit a classifier for each column"


@dataclass(frozen=True)
class LabelSets:
    """What y says.

    Attributes:
        marks: whether each row has each label, [n, K].
        classes: the labels, [K]: those of sets sorted, those of a matrix in the order of its columns.
        form: how y holds them: `sets`, or `matrix` or `sparse` with the type of its numbers, as in `matrix int64`.
    """

    marks: np.ndarray
    classes: np.ndarray
    form: str


def kept(y: Any) -> Any:
    """y that can be read twice."""
    return list(y) if isinstance(y, Iterator) else y


def has_sets(y: Any) -> bool:
    """Whether y has several labels a row: sets of them, or several columns."""
    if sparse.issparse(y):
        return True
    shape: tuple[int, ...] = getattr(y, "shape", ())
    if len(shape) == 2:
        return bool(shape[1] != 1)
    if y is None or isinstance(y, (str, bytes)) or len(shape) > 2:
        return False
    return any(isinstance(_row(one), (*_COLLECTIONS, dict)) for one in listed(y, ""))


def read_sets(y: Any, who: str, classes: np.ndarray | None = None, name: str = "y", form: str = "") -> LabelSets:
    """Labels of each row.

    Args:
        who: the estimator, for messages.
        classes: the labels that there are, [K]; None: those of y.
        name: of the argument.
        form: of the y of `fit`, see `LabelSets`; where it was sets, lists of 0 and 1 are sets, and no rows of a matrix.

    Raises:
        InputError: y is no sets of labels and no matrix of 0 and 1, or holds labels that are not in `classes`.
    """
    if sparse.issparse(y):
        return _of_matrix(y.toarray(), range(y.shape[1]), classes, f"sparse {y.dtype}", name)
    if hasattr(y, "columns") and hasattr(y, "to_numpy"):
        names = [column if isinstance(column, (str, int)) else str(column) for column in map(plain, y.columns)]
        return _of_matrix(y.to_numpy(), names, classes, "", name)
    if hasattr(y, "__array__") and len(getattr(y, "shape", ())) == 2:
        values = np.asarray(y)
        return _of_matrix(values, range(values.shape[1]), classes, "", name)
    rows = [_row(one) for one in listed(y, who)]
    if rows and all(isinstance(row, dict) for row in rows):
        names = list(dict.fromkeys(column for row in rows for column in row))
        return _of_matrix([[row.get(column) for column in names] for row in rows], names, classes, "", name)
    if form != SETS and _is_matrix(rows):
        return _of_matrix(rows, range(len(rows[0])), classes, "", name)
    return _of_sets(rows, classes, name, form)


def _row(value: Any) -> Any:
    """A row of y without NumPy's types."""
    value = plain(value)
    return dict(value) if hasattr(value, "items") else value


def _cell(value: Any) -> Any:
    """A cell of a table without the types of NumPy and pandas, whose missing values cannot be compared."""
    return None if type(value).__name__ in ("NAType", "NaTType") else plain(value)


def _is_matrix(rows: Sequence[Any]) -> bool:
    """Whether lists are rows of a matrix, as scikit-learn reads them: of one length, two or more, and all 0 and 1."""
    if not all(isinstance(row, (list, tuple)) for row in rows) or len({len(row) for row in rows}) != 1:
        return False
    return len(rows[0]) > 1 and all(not isinstance(value, str) and value in (0, 1) for row in rows for value in row)


def _of_matrix(values: Any, names: Sequence[Any], classes: np.ndarray | None, form: str, name: str) -> LabelSets:
    """A column of 0 and 1 for each label."""
    table = np.asarray(values)
    if table.dtype == object:  # columns of several types, or of texts
        table = np.array([[_cell(value) for value in row] for row in table.tolist()], object)
    if table.ndim != 2 or not table.shape[1]:
        raise InputError(f"{name} has no columns; give a column of 0 and 1 for each label")
    _refuse_other_marks(table, names, name)
    marks = table.astype(float) == 1
    dtype = table.dtype if table.dtype.kind in "biuf" else np.dtype(int)
    form = form or f"matrix {dtype}"
    if table.shape[1] == 1:
        raise InputError(f"{name} is a matrix of one column; give a column for each label, or one label a row")
    if len({text_of(column) for column in names}) < len(names):
        raise InputError(f"{name} has two columns of one name; rename one")
    if classes is None:
        return LabelSets(marks, np.array([*map(text_of, names)] if len({*map(type, names)}) > 1 else names), form)
    if all(isinstance(column, int) for column in names):
        if len(names) != len(classes):
            raise InputError(f"{name} has {len(names)} columns, and there are {len(classes)} labels; give one for each")
        return LabelSets(marks, classes, form)
    places = _places(list(names), classes, name)
    ordered = np.zeros((len(marks), len(classes)), dtype=bool)
    ordered[:, places] = marks
    return LabelSets(ordered, classes, form)


def _refuse_other_marks(table: np.ndarray, names: Sequence[Any], name: str) -> None:
    """
    Raises:
        InputError: a cell is something else than 0 or 1.
    """
    if table.dtype.kind in "biuf":
        bad = np.argwhere((table != 0) & (table != 1)).tolist()
    else:
        cells = np.ndenumerate(table)
        bad = [list(at) for at, value in cells if isinstance(value, str) or value is None or value not in (0, 1)]
    if not bad:
        return
    row, column = bad[0]
    value = plain(table[row, column])
    where = f"{name}[{row}, {names[column]!r}] is {shown(value)}"
    values = {plain(table[row, column]) for row, column in bad}
    if all(isinstance(one, str) or (isinstance(one, int) and not isinstance(one, bool)) for one in values):
        raise InputError(f"{name} is multiclass-multioutput, which is not supported ({where}); {_INSTEAD}")
    raise InputError(f"{where}; expected 1 where the row has the label, else 0")


def _of_sets(rows: Sequence[Any], classes: np.ndarray | None, name: str, form: str) -> LabelSets:
    """A set of labels for each row."""
    matrix = "give a matrix as an array" if form == SETS else "rows of a matrix of 0 and 1 must have equal lengths"
    problems = [told for place, row in enumerate(rows) for told in _problems(row, f"{name}[{place}]", matrix)]
    refuse_all(problems, len(rows), "rows")
    there = dict.fromkeys(plain(label) for row in rows for label in row)
    if len({_order(plain(label)) for row in rows for label in row}) > 1:
        raise InputError(f"{name} mixes texts, numbers or booleans, which have no common order; make them all texts")
    if classes is None:
        if not there:
            raise InputError(f"{name} has no label in any row; give rows that have some")
        classes = np.array(sorted(there))
    places = dict(zip(there, _places(list(there), classes, name), strict=True))
    marks = np.zeros((len(rows), len(classes)), dtype=bool)
    for mark, row in zip(marks, rows, strict=True):
        mark[[places[plain(label)] for label in row]] = True
    return LabelSets(marks, classes, SETS)


def _problems(row: Any, where: str, matrix: str) -> Iterator[str]:
    """Why a row is no set of labels.

    Args:
        matrix: advice where it looks like a row of a matrix.
    """
    if not isinstance(row, _COLLECTIONS):
        yield f"{where} is {kind(row)}; expected a set of labels, which is empty where the row has none"
        return
    seen: set[Any] = set()
    for label in map(plain, row):
        what = kind(label)
        if what not in ("a text", "a number", "true", "false"):
            yield f"{where} holds {what}; expected labels, which are texts or whole numbers"
        elif isinstance(label, float) and not label.is_integer():
            yield f"{where} holds {label}, which is no label; labels are texts or whole numbers"
        elif isinstance(label, str) and is_blank(label):
            yield f"{where} holds an empty text; give the label a name"
        elif label in seen:
            same = f"{where} names {label!r} twice; name it once"
            yield f"{same} ({matrix})" if label in (0, 1) else same
        else:
            seen.add(label)


def _order(label: Any) -> str:
    """What a label can be sorted with."""
    return "boolean" if isinstance(label, bool) else "text" if isinstance(label, str) else "number"


def _places(labels: Sequence[Any], classes: np.ndarray, name: str) -> list[int]:
    """Where labels stand in `classes`, by what they are or how they are written.

    Raises:
        InputError: one is not there.
    """
    known = {text_of(label): place for place, label in enumerate(classes.tolist())}
    known |= {label: place for place, label in enumerate(classes.tolist())}
    if absent := [label for label in labels if label not in known and text_of(label) not in known]:
        told = ", ".join(map(repr, absent[:5])) + (" …" if len(absent) > 5 else "")
        raise InputError(
            f"{name} holds labels that were not there in fit ({told}); fit on them, or leave these rows out"
        )
    return [known[label] if label in known else known[text_of(label)] for label in labels]


def as_given(marks: np.ndarray, classes: np.ndarray, form: str) -> Any:
    """Labels in the form of y: an array of tuples [n], or a matrix of 0 and 1 [n, K].

    Args:
        marks: whether each row has each label, [n, K].
        form: see `LabelSets`.
    """
    holder, _, dtype = form.partition(" ")
    if holder == "matrix":
        return marks.astype(dtype)
    if holder == "sparse":
        return sparse.csr_matrix(marks.astype(dtype))
    found = np.empty(len(marks), object)
    found[:] = [tuple(classes[row].tolist()) for row in marks]
    return found


def marks_of(answers: Sequence[Sequence[str]], labels: Sequence[str]) -> np.ndarray:
    """Whether each row's answer holds each label, [n, K]."""
    places = {label: place for place, label in enumerate(labels)}
    marks = np.zeros((len(answers), len(labels)), dtype=bool)
    for row, given in zip(marks, answers, strict=True):
        row[[places[label] for label in given]] = True
    return marks


def set_rows(
    values: Sequence[dict[str, Any]], sets: LabelSets, texts: Sequence[str], weights: Sequence[float], name: str = "X"
) -> list[Row]:
    """Rows with their labels, as a task of type `multilabel` reads them.

    Args:
        values: the fields of each row.
        texts: of the labels.
    """
    labels = [[text for text, mark in zip(texts, row, strict=True) if mark] for row in sets.marks.tolist()]
    return [
        Row({**fields, "labels": own}, f"{name}[{place}]", weight)
        for place, (fields, own, weight) in enumerate(zip(values, labels, weights, strict=True))
    ]


def refuse_alike(sets: LabelSets, weights: np.ndarray) -> None:
    """
    Raises:
        InputError: all rows that count have the same labels, so that there is nothing to tell apart.
    """
    used = sets.marks[weights > 0]
    if (used == used[0]).all():
        labels = ", ".join(repr(label) for label in sets.classes[used[0]].tolist()) or "none"
        raise InputError(f"y has the same labels in all rows ({labels}); give rows that differ in some")


def refuse_columns(table: Table, sets: LabelSets) -> None:
    """
    Raises:
        InputError: a column of X is the one of a label.
    """
    for place, label in enumerate(sets.classes.tolist()):
        if label in (table.columns or ()) and all(
            plain(row[label]) == mark for row, mark in zip(table.rows, sets.marks[:, place].tolist(), strict=True)
        ):
            raise InputError(f"column {label!r} of X is that of y, the right answer; leave it out of X")
