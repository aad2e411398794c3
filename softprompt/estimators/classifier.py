"""A classifier of texts, as scikit-learn knows classifiers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin

from ..auto import Trainer, choose, contenders_for, is_open
from ..data import Row
from ..errors import InputError
from ..tasks import Task
from ..tasks.proposed import Kind
from ..values import plain, text_of
from .base import PromptEstimator, fitted_of, own_errors
from .dividing import divide
from .fitted import Fitted
from .inputs import label_texts, read_labels, read_table, read_weights, same_length
from .reading import Reads
from .shared import CACHE, LOCK, SharedRows, base_of
from .shown import watching

_READ: dict[str, Any] = {"int": int, "float": float, "bool": lambda text: text == "true"}


class PromptClassifier(ClassifierMixin, PromptEstimator):
    """Tell texts apart with a prompt that is learned on a frozen base.

    X is a list of texts, an array or Series of them, or a table whose columns are fields of a row: a DataFrame, a
    `datasets.Dataset`, a list of dicts. y holds a label for each row: texts, numbers, booleans or categories.

    Args:
        base: a bundled name (`smollm2`, `minilm`), a folder or hub id, a `Base`; `auto` chooses.
        method: what is learned (`infix`, `soft`, `probe` …), by name or with its settings; `auto` chooses.
        instruction: in front of every text; None: one that names the labels.
        label_words: label → its word in the prompt; None: the labels in plain writing.
        lr, epochs: of training; None: the method's own.
        seed: of the initialisation, the order of rows, and which of them are dev rows.
        dev: rows that choose the best step, and what `auto` takes: `auto` (15 % of 40 rows or more; folds where base or method
            are `auto`), 0 (none), a fraction, a number, or (X, y).
        class_weight: label → weight, or `balanced`.
        verbose: show progress and one line at the end: `auto` in a terminal or notebook; True, False.

    Attributes:
        classes_: the labels, sorted, [K].
        summary_: what was learned from how many rows, for people.

    Example:
        >>> classifier = PromptClassifier().fit(["a quiet triumph", "a dull film"], ["good", "bad"])
        >>> classifier.predict_proba(["what a bore"])
    """

    kind: ClassVar[Kind] = "classification"
    classes_: np.ndarray

    def __init__(
        self,
        base: Any = "auto",
        method: Any = "auto",
        *,
        instruction: str | None = None,
        label_words: Mapping[Any, str] | None = None,
        lr: float | None = None,
        epochs: int | None = None,
        seed: int = 0,
        dev: Any = "auto",
        class_weight: Any = None,
        verbose: Any = "auto",
    ) -> None:
        self.base = base
        self.method = method
        self.instruction = instruction
        self.label_words = label_words
        self.lr = lr
        self.epochs = epochs
        self.seed = seed
        self.dev = dev
        self.class_weight = class_weight
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> PromptClassifier:
        """Learn from texts and their labels.

        Args:
            sample_weight: what each row's loss is multiplied by, [n].

        Raises:
            InputError: X, y or a setting that cannot be used, or a base that is not there (a ValueError as well).
            TrainingError: a loss that is not finite.
        """
        with own_errors():
            who = type(self).__name__
            table, labels = read_table(X, who), read_labels(y, who)
            same_length(table.rows, labels, who)
            weights = read_weights(sample_weight, self.class_weight, labels, len(labels))
            classes, places = np.unique(labels, return_inverse=True)
            _refuse_one_class(classes, places[weights > 0])
            texts, reads = label_texts(classes), Reads.of_table(table)
            words = {text_of(plain(label)): word for label, word in (self.label_words or {}).items()}
            task = Task.load(self._settings(reads, texts, words))
            rows = [
                Row({**values, "label": texts[place]}, f"X[{index}]", float(weight))
                for index, (values, place, weight) in enumerate(
                    zip(reads.rows(table, who), places.tolist(), weights, strict=True)
                )
            ]
            _refuse_answers(reads, rows)
            dev = self._dev_rows(reads, classes, texts)
            remembered = {"labels": _kind_of(classes)}
            if is_open(self.base, self.method):
                if dev is None and self.dev != "auto":
                    rows, dev = divide(rows, task.label, self.dev, self.seed)
                fitted, summary = self._choose(task, rows, dev or [], remembered)
            else:
                fitted, summary = self._learn(task, rows, dev, task.label, remembered)
        self.classes_, self.summary_ = classes, summary
        self._take(fitted, reads)
        return self

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Log-probabilities of `classes_`, [n, K].

        Raises:
            NotFittedError: nothing was learned yet.
            InputError: X cannot be read.
        """
        with own_errors():
            fitted = self._known()
            asked = self._asked(X)
            with watching(self.verbose) as (progress, _):
                return fitted.predict_log_proba(asked, label_texts(self.classes_), progress)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of `classes_`, [n, K]; see `predict_log_proba` for what is raised."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """The most likely label of each row, [n]; see `predict_log_proba` for what is raised."""
        likely = self.predict_log_proba(X).argmax(1)
        return self.classes_[likely]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of rows that are labelled right.

        Raises:
            InputError: y holds a label that was not there in `fit`, which no answer can match.
        """
        self._known()
        who = type(self).__name__
        labels = read_labels(y, who)
        unseen = sorted({str(label) for label in labels.tolist()} - {str(label) for label in self.classes_.tolist()})
        if unseen:
            shown = ", ".join(map(repr, unseen[:5])) + (" …" if len(unseen) > 5 else "")
            raise InputError(
                f"y holds labels that {who} has not seen in fit ({shown}); fit on them, or leave these rows out"
            )
        return float(super().score(X, labels, sample_weight))

    def _choose(
        self, task: Task, rows: list[Row], dev: list[Row], remembered: Mapping[str, Any]
    ) -> tuple[Fitted, dict[str, Any]]:
        """Try what `auto` leaves open, and learn what does best; with a summary for people."""
        spec, seed = self._how()
        began = time.perf_counter()
        with watching(self.verbose) as (progress, tell), LOCK:
            trainer = Trainer(task, base_of, SharedRows(), spec, seed, CACHE, progress)
            contenders = contenders_for(self.base, self.method)
            comparison, members = choose(trainer, contenders, [row for row in rows if row.weight], dev)
            for _, result in members:
                result.settings |= remembered
            fitted = fitted_of(members)
            summary = self._summed_up({"chosen": comparison.says, "learned from": f"{len(rows)} rows"}, began, tell)
        return fitted, summary

    def _dev_rows(self, reads: Reads, classes: np.ndarray, texts: list[str]) -> list[Row] | None:
        """Dev rows that were given; None where some of the others are to be."""
        if (given := self._given_dev()) is None:
            return None
        who = type(self).__name__
        asked, labels = self._values(given[0], reads, "X_dev"), read_labels(given[1], who)
        same_length(asked, labels, who)
        names = dict(zip(classes.tolist(), texts, strict=True))
        if absent := [label for label in labels.tolist() if label not in names]:
            raise InputError(f"y_dev holds {absent[0]!r}, which is no label of y; leave these rows out of dev")
        return [
            Row({**values, "label": names[label]}, f"X_dev[{place}]")
            for place, (values, label) in enumerate(zip(asked, labels.tolist(), strict=True))
        ]

    def _take(self, fitted: Fitted, reads: Reads) -> None:
        super()._take(fitted, reads)
        if not hasattr(self, "classes_"):  # of an artifact
            labels = list(fitted.task.labels)  # type: ignore[attr-defined]  # of a classification
            kind = fitted.manifests[0].training.get("labels", "text")
            self.classes_ = np.unique([_READ[kind](label) for label in labels] if kind in _READ else labels)

    def __sklearn_tags__(self) -> Any:
        """Texts, alone or in columns (scikit-learn's checks bring numbers in columns)."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        return tags


def _refuse_one_class(classes: np.ndarray, places: np.ndarray) -> None:
    """
    Raises:
        InputError: nothing is to be told apart.
    """
    if len(np.unique(places)) < 2:
        label = classes[places[0]].tolist() if len(places) else None
        raise InputError(f"y has one class only, {label!r}; give rows of at least two classes")


def _refuse_answers(reads: Reads, rows: list[Row]) -> None:
    """
    Raises:
        InputError: a column of X is y itself.
    """
    if reads.texts:
        return
    for column, field in reads.fields.items():
        if all(str(row.values[field]) == row.values["label"] for row in rows):
            raise InputError(f"column {column!r} of X is y itself, the right answer; leave it out of X")


def _kind_of(classes: np.ndarray) -> str:
    kinds = {type(value) for value in classes.tolist()}
    return {bool: "bool", int: "int", float: "float"}.get(kinds.pop(), "text") if len(kinds) == 1 else "text"
