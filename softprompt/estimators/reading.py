"""Which of X's columns a prompt reads, and under which names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import nodes

from ..config import suggest
from ..errors import InputError
from ..tasks import Task
from ..template import TemplateSpec
from ..template.sandbox import parse
from .inputs import TEXT, Table, field_names


@dataclass(frozen=True)
class Reads:
    """Which of X's columns a template reads, and under which names.

    Attributes:
        fields: column → field; of X that is a list of texts the one field under `TEXT`.
        texts: X was a list of texts.
        named: the columns had names.
    """

    fields: dict[str, str]
    texts: bool
    named: bool

    @classmethod
    def of_table(cls, table: Table) -> Reads:
        """Of what an estimator learns from: all of its columns."""
        fields = {TEXT: TEXT} if table.columns is None else field_names(table.columns)
        return cls(fields, table.columns is None, table.named)

    @classmethod
    def of_task(cls, task: Task) -> Reads:
        """Of a task that was loaded: each field is a column of its name."""
        names = _in_order(task.spec.template)
        return cls({name: name for name in names}, len(names) == 1, True)

    def rows(self, table: Table, who: str, name: str = "X") -> list[dict[str, Any]]:
        """The fields of each row.

        Raises:
            InputError: the table lacks a column, or has another number of them.
        """
        if table.columns is not None:
            sources = self._sources(table.columns, table.named, who, name)
            return [{field: _as_text(row[column]) for field, column in sources.items()} for row in table.rows]
        if len(self.fields) > 1:
            columns = ", ".join(map(repr, self.fields))
            raise InputError(
                f"{name} is a list of texts, {who} was fitted on columns {columns}; Reshape your data to have them"
            )
        field = next(iter(self.fields.values()))
        return [{field: row[TEXT]} for row in table.rows]

    def _sources(self, columns: tuple[str, ...], named: bool, who: str, name: str) -> dict[str, str]:
        """Field → the column that it is read from: by name where both have names, else by place."""
        if all(column in columns for column in self.fields) and (named or len(columns) == len(self.fields)):
            return {field: column for column, field in self.fields.items()}
        known = {field: column for column, field in field_names(columns).items()}
        if named and all(field in known for field in self.fields.values()):  # of a table before it was saved
            return {field: known[field] for field in self.fields.values()}
        if len(columns) == len(self.fields) and (self.texts or not (named and self.named)):
            return dict(zip(self.fields.values(), columns, strict=True))
        if not named:
            raise InputError(
                f"{name} has {len(columns)} features, but {who} is expecting {len(self.fields)} features as input"
            )
        absent = next(column for column in self.fields if column not in columns)
        what = "a list of texts" if self.texts else f"column {absent!r}, which is not there"
        shown = ", ".join(map(repr, columns))
        raise InputError(f"{name} has columns {shown}; {who} was fitted on {what}{suggest(absent, columns)}")


def _in_order(template: TemplateSpec) -> list[str]:
    """The fields of a template in the order in which it reads them, as an estimator wrote it in the order of X's columns."""
    read = dict.fromkeys(name.name for name in parse(template.input).find_all(nodes.Name))
    return [name for name in read if name in template.fields] or sorted(template.fields)


def _as_text(value: Any) -> Any:
    """Yes and no as texts; a template prints everything else."""
    return ("true" if value else "false") if isinstance(value, (bool, np.bool_)) else value
