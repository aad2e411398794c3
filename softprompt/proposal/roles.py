"""Which column is read and which is the answer, as named or as guessed; an error if it is not clear."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, get_args

from ..config import suggest
from ..errors import ConfigError, DataError
from ..tasks.multilabel import MARKS
from ..tasks.proposed import Kind
from .columns import LABEL_NAMES, TEXT_NAMES, Column

KINDS = get_args(Kind)
_WRITTEN = (
    (("prompt",), "completion"),
    (("instruction", "input"), "output"),
    (("instruction",), "output"),
    (("instruction",), "response"),
    (("question",), "answer"),
    (("document",), "summary"),
    (("article",), "summary"),
    (("source",), "target"),
)
"""Names of columns that are read, and of the one that holds what is written."""

_ALIKE = 0.5  # a text column half as long as the longest one may be read as well as that


@dataclass(frozen=True)
class Roles:
    """What the columns are for.

    Attributes:
        fields: columns that are read, in their order in the template.
        answers: column with the answer, or one of 0 and 1 for each label.
    """

    kind: Kind
    fields: tuple[str, ...]
    answers: tuple[str, ...]

    @property
    def answer(self) -> str:
        """The column with the answer, where there is one."""
        return self.answers[0]

    @property
    def marked(self) -> bool:
        """Whether each label has a column of its own."""
        return len(self.answers) > 1


def roles_of(
    columns: Sequence[Column], text: Sequence[str], label: Sequence[str], kind: str | None, where: str
) -> Roles:
    """What each column is for.

    Args:
        text, label, kind: as they were named; empty or None where they are to be guessed.
        where: the file, for messages.

    Raises:
        ConfigError: a column that is named twice; no such type of a task, or one that has no several labels.
        DataError: a column is missing, or its role is not clear; the message names the options that settle it.
    """
    names = [column.name for column in columns]
    for option, given in (("--text", text), ("--label", label)):
        if twice := [name for name, count in Counter(given).items() if count > 1]:
            raise ConfigError(f"{option} {twice[0]}: is named twice; name each column once")
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"--type {kind}: is not proposed{suggest(kind, KINDS)}; write such a task by hand")
    for name in (*text, *label):
        if name not in names:
            raise DataError(f"{where}: has no column {name!r}{suggest(name, names)}")
        if name in text and name in label:
            raise DataError(
                f"{where}: column {name!r} is named as text and as label; the answer itself must not be read"
            )
    if len(label) > 1:
        _check_marks(columns, label, kind, where)
        others = [column for column in columns if column.name not in label[1:]]
        return Roles("multilabel", tuple(text) or _text(others, label[0], where), tuple(label))
    named = None if label else _by_names(names)
    if named is not None and kind in (None, named.kind) and not (text and named.kind == "tagging"):
        return Roles(named.kind, tuple(text) or named.fields, named.answers)
    if not label and {"choices", "messages"} & {*names} and not text:
        what = "choices" if "choices" in names else "messages"
        raise DataError(f"{where}: has a column {what!r}, for which no task is proposed; write one (docs/data.md)")
    answer = label[0] if label else _answer(columns, text, kind, where)
    column = next(one for one in columns if one.name == answer)
    fields = tuple(text) or _text(columns, answer, where)
    return Roles(_kind(column, kind), fields, (answer,))


def _check_marks(columns: Sequence[Column], label: Sequence[str], kind: str | None, where: str) -> None:
    """Several columns must each say of one label whether a row has it."""
    if kind not in (None, "multilabel"):
        raise ConfigError(f"--type {kind}: has one answer, and --label names {len(label)} columns; name one")
    for column in columns:
        if column.name in label and (other := [value for value in column.counts if value.strip().lower() not in MARKS]):
            raise DataError(
                f"{where}: column {column.name!r} holds {other[0][:40]!r}; where --label names several columns, each holds 1 "
                "where the row has the label, else 0"
            )
        if column.name in label and not column.counts:
            raise DataError(
                f"{where}: column {column.name!r} holds {column.holds}; expected 1 where the row has the label"
            )
    if "labels" not in label and any(column.name == "labels" for column in columns):
        raise DataError(
            f"{where}: has a column 'labels', which a task reads first; rename it, or name it alone as --label"
        )


def _by_names(names: Sequence[str]) -> Roles | None:
    """Shapes that are known by the names of their columns."""
    there = {*names}
    answers = next((name for name in ("answers", "answer") if name in there), None)
    if answers is not None and {"question", "context"} <= there:
        return Roles("span", ("context", "question"), (answers,))
    if {"tokens", "tags"} <= there:
        return Roles("tagging", ("text",), ("tags",))
    if {"text", "entities"} <= there:
        return Roles("tagging", ("text",), ("entities",))
    for fields, answer in _WRITTEN:
        if {*fields, answer} <= there and not there & {*LABEL_NAMES} - {answer}:
            return Roles("generation", fields, (answer,))
    return None


def _kind(answer: Column, kind: str | None) -> Kind:
    """The type that was named; else sets of labels, free answers where they hardly repeat, and labels where they do."""
    if kind is not None:
        return cast(Kind, kind)
    if answer.several is not None:
        return "multilabel"
    many = len(answer.counts) > max(20, answer.filled // 2)
    return "generation" if many or (answer.may_be_text and not answer.may_be_label) else "classification"


def _answer(columns: Sequence[Column], text: Sequence[str], kind: str | None, where: str) -> str:
    others = [column for column in columns if column.name not in text]
    sets = [column for column in others if column.several is not None and kind != "generation"]
    labels = [column for column in others if column.may_be_label and kind != "generation"]
    labels = sets or labels if kind == "multilabel" else labels or sets
    if len(labels) == 1:
        return labels[0].name
    if (named := _first_named(labels or others, LABEL_NAMES)) is not None:
        return named
    texts = [column for column in others if column.may_be_text]
    if not labels and kind not in ("classification", "multilabel") and len(texts) == 2 - min(1, len(text)):
        return texts[-1].name  # what is asked stands before what is answered
    which = "any of several columns" if labels else "no column"
    rule = "" if labels else "; a column of labels has two values or more, which repeat"
    likely = sorted(labels, key=lambda column: (column.numbers, len(column.counts)))
    raise DataError(
        f"{where}: {which} may be the label ({_listed(columns)}){rule}; name both columns, e.g. --text "
        f"{_quoted((texts or columns)[0].name)} --label {_quoted((likely or columns[::-1])[0].name)}"
    )


def _text(columns: Sequence[Column], answer: str, where: str) -> tuple[str, ...]:
    texts = sorted(
        (column for column in columns if column.name != answer and column.may_be_text),
        key=lambda column: -column.characters,
    )
    if len(texts) == 1 or (texts and texts[1].characters < _ALIKE * texts[0].characters):
        return (texts[0].name,)
    if (named := _first_named(texts, TEXT_NAMES)) is not None:
        return (named,)
    others = [column for column in columns if column.name != answer]
    if not texts and len(others) == 1 and others[0].counts:
        return (others[0].name,)
    which = "any of several columns" if texts else "no column"
    raise DataError(
        f"{where}: {which} may be the text ({_listed(columns)}); name both columns, e.g. --text "
        f"{_quoted((texts or others or columns)[0].name)} --label {_quoted(answer)}"
    )


def _first_named(columns: Sequence[Column], names: Sequence[str]) -> str | None:
    """The column with the first of these names that one has, in any case."""
    found = {column.name.casefold(): column.name for column in columns}
    return next((found[name] for name in names if name in found), None)


def _listed(columns: Sequence[Column]) -> str:
    shown = ", ".join(map(str, columns[:12]))
    return shown + (f" and {len(columns) - 12} more" if len(columns) > 12 else "")


def _quoted(name: str) -> str:
    return shlex.quote(name)
