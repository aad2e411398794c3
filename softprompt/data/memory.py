"""Rows that a caller holds in memory: lists, NumPy's arrays, tables of pandas and of `datasets`.

Neither pandas nor datasets is imported: an object of theirs says by its class where it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import DataError, InputError
from ..values import kind, plain_row
from .files import label_name
from .json_files import Found

_EXPECTED = 'expected a list of rows with their fields, e.g. [{"text": "…"}], a DataFrame or a datasets.Dataset'


def rows_of(data: Any, name: str = "rows") -> list[Any]:
    """The rows of a table as dicts, and the items of everything else as they are.

    What pandas holds for a missing value (`NA`, `NaT`) becomes None; NaN stays. Columns without names are called `x0`,
    `x1` …; class labels of a `datasets.Dataset` get their names.

    Args:
        name: of the argument, for messages.

    Raises:
        InputError: a text, a number, one row, a sparse matrix.
    """
    if isinstance(data, list):
        return data
    package = packages_of(data)
    if "pandas" in package:
        return _of_pandas(data)
    if "datasets" in package and hasattr(data, "features") and hasattr(data, "column_names"):
        return _of_dataset(data)
    if "scipy" in package and hasattr(data, "toarray"):
        raise InputError(f"{name} are a sparse matrix, which holds numbers; {_EXPECTED}")
    if hasattr(data, "__array__") and not isinstance(data, Iterable):
        import numpy as np

        data = np.asarray(data)
    if "numpy" in packages_of(data):
        return _of_array(data, name)
    if not isinstance(data, Iterable) or isinstance(data, (str, bytes, Mapping)):
        raise InputError(f"{name} are a {type(data).__name__}; {_EXPECTED}")
    return list(data)


def in_memory(data: Any, name: str = "rows") -> list[Found]:
    """Rows in memory as a reader of files would give them, each with its place (`rows[12]`, counted from 0).

    Raises:
        DataError: no rows; see `rows_of`.
    """
    rows = rows_of(data, name)
    if not rows:
        raise DataError(f"{name} are empty; at least one row is needed")
    return [_found(row, f"{name}[{place}]") for place, row in enumerate(rows)]


def _found(row: Any, where: str) -> Found:
    if hasattr(row, "items"):
        return where, plain_row(row), None
    return where, None, f'is {kind(row)}; expected its fields, e.g. {{"text": "…"}}'


def packages_of(data: Any) -> set[str]:
    """The packages that an object's classes come from."""
    return {cls.__module__.partition(".")[0] for cls in type(data).__mro__}


def _of_pandas(data: Any) -> list[Any]:
    if not hasattr(data, "columns"):
        return [_missing(value) for value in data.tolist()]
    if not data.columns.is_unique:
        raise InputError(
            f"two columns have one name, {next(iter(data.columns[data.columns.duplicated()]))!r}; rename one"
        )
    unnamed = not any(isinstance(name, str) for name in data.columns)
    names = [f"x{place}" if unnamed else str(name) for place, name in enumerate(data.columns)]
    columns = [[_missing(value) for value in data.iloc[:, place].tolist()] for place in range(len(names))]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _missing(value: Any) -> Any:
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def _of_dataset(data: Any) -> list[dict[str, Any]]:
    features = data.features or {}
    return [{key: label_name(features.get(key), value) for key, value in row.items()} for row in data]


def _of_array(data: Any, name: str) -> list[Any]:
    if data.ndim == 0:
        raise InputError(f"{name} are a single value; {_EXPECTED}")
    if data.ndim > 2:
        raise InputError(f"{name} have {data.ndim} dimensions; expected rows and columns: Reshape your data")
    values = data.tolist()
    if data.ndim == 1:
        return values
    return [{f"x{place}": value for place, value in enumerate(row)} for row in values]
