"""y with one label a row: read, checked, and named by texts in a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from ..errors import InputError
from ..values import composed, is_blank, kind, plain, text_of
from .inputs import listed, refuse_all

_READ: dict[str, Any] = {"int": int, "float": float, "bool": lambda text: text == "true"}


def read_labels(y: Any, who: str) -> np.ndarray:
    """Labels as they come (texts, numbers, booleans, categories), [n].

    Raises:
        InputError: a label that is missing, or none; numbers that go on between each other, as of a regression.
    """
    if y is None or isinstance(y, (str, bytes)):
        listed(y, who)
    values = np.asarray(y) if hasattr(y, "__array__") else np.asarray(_listed_labels(y, who))
    try:
        values = column_or_1d(values, warn=True)
    except ValueError as error:
        raise InputError(f"{error}; give each row a label, or a set of labels") from None
    if problems := _bad_labels(values.tolist()):
        refuse_all(problems, len(values), "labels")
    if len({isinstance(value, str) for value in values.tolist()}) > 1:
        raise InputError("y mixes texts and numbers, which have no common order; make them all texts")
    try:
        check_classification_targets(values)
    except ValueError as error:
        raise InputError(f"{error}") from None
    return values


def _listed_labels(y: Any, who: str) -> Any:
    values = listed(y, who)
    kinds = {type(plain(value)) for value in values}
    return values if len(kinds) == 1 and not kinds & {list, tuple} else np.array([*values, None], object)[:-1]


def _bad_labels(values: Sequence[Any]) -> list[str]:
    problems = []
    for place, value in enumerate(values):
        found = kind(value)
        if found not in ("a text", "a number", "true", "false"):
            problems.append(f"y[{place}] is {found}; every row needs a label")
        elif found == "a text" and is_blank(value):
            problems.append(f"y[{place}] is an empty text; give the label a name")
    return problems


def places_of(labels: np.ndarray, classes: np.ndarray, who: str, name: str = "y") -> np.ndarray:
    """Where labels stand in `classes`, [n]; by value, so that 1, 1.0 and True are one label, and the text "1" is another.

    Raises:
        InputError: some are not there.
    """
    known = {label: place for place, label in enumerate(classes.tolist())}
    if unseen := [label for label in dict.fromkeys(labels.tolist()) if label not in known]:
        shown = ", ".join(map(repr, unseen[:5])) + (" …" if len(unseen) > 5 else "")
        raise InputError(
            f"{name} holds labels that {who} has not seen in fit ({shown}); fit on them, or leave these rows out"
        )
    return np.array([known[label] for label in labels.tolist()], dtype=int)


def label_texts(classes: Any) -> list[str]:
    """Each class as a text, by which the task names it.

    Raises:
        InputError: two classes that are written alike.
    """
    texts = [text_of(value) for value in np.asarray(classes).tolist()]
    seen: dict[str, str] = {}
    for text in texts:
        if (other := seen.setdefault(composed(text), text)) is not text:
            raise InputError(f"labels {other!r} and {text!r} are written alike; rename one")
    return texts


def refuse_one_class(classes: np.ndarray, places: np.ndarray) -> None:
    """
    Raises:
        InputError: there is only one class.
    """
    if len(np.unique(places)) < 2:
        label = classes[places[0]].tolist() if len(places) else None
        raise InputError(f"y has one class only, {label!r}; give rows of at least two classes")


def kind_of(classes: np.ndarray) -> str:
    """What all labels are, so that `labels_of` can read them from texts: `bool`, `int`, `float` or `text`."""
    kinds = {type(value) for value in classes.tolist()}
    return {bool: "bool", int: "int", float: "float"}.get(kinds.pop(), "text") if len(kinds) == 1 else "text"


def labels_of(texts: Sequence[str], kind: str) -> list[Any]:
    """Labels of a kind from their texts; see `kind_of`."""
    return [_READ[kind](text) for text in texts] if kind in _READ else list(texts)
