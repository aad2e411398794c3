"""A classifier of texts, as scikit-learn knows classifiers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score

from ..auto import Trainer, choose, contenders_for, is_open
from ..data import Row
from ..errors import InputError
from ..tasks import Task
from ..tasks.multilabel import MultiLabel
from ..tasks.proposed import Kind
from ..values import plain, text_of
from .base import PromptEstimator, fitted_of, own_errors
from .fitted import Fitted
from .inputs import Table, read_table, read_weights, same_length
from .labels import kind_of, label_texts, labels_of, places_of, read_labels, refuse_one_class
from .reading import Reads
from .sets import SETS, as_given, has_sets, kept, marks_of, read_sets, refuse_alike, refuse_columns, set_rows
from .shared import CACHE, LOCK, SharedRows, base_of
from .shown import watching

_Learned = tuple[Fitted, dict[str, Any], np.ndarray, str]
"""What was learned, a summary of it, the labels, and the form of y where rows have several."""


class PromptClassifier(ClassifierMixin, PromptEstimator):
    """Classify texts with a prompt that is learned on a frozen base.

    X is a list of texts, or an array or Series of them. It may also be a table whose columns are the fields of a row: a
    DataFrame, a `datasets.Dataset` or a list of dicts.

    In y each row has one label: a text, number, boolean or category. Where rows have any number of labels, y is a set
    (list, tuple) of labels for each row, which may be empty. Or y is a matrix with a column of 0 and 1 for each label.
    Each label is then decided by itself.

    Args:
        base: a bundled name (`smollm2`, `minilm`), a folder or hub id, or a `Base`. `auto` chooses (with several labels
            a row: minilm).
        method: what is learned (`infix`, `soft`, `probe` …), by name or with its settings. `auto` chooses (with several
            labels a row: `probe`).
        instruction: stands in front of every text. None: an instruction that names the labels; no instruction where a
            row has several labels.
        label_words: label → its word in the prompt. None: the labels themselves. Not used with several labels a row.
        lr, epochs: learning rate and passes over the rows; None: the method's own.
        seed: of the initialisation, the order of rows, and which of them are dev rows.
        dev: the rows that choose the best step, the base and method of `auto`, and the thresholds of several labels. A
            fraction, a number of rows, 0 for none, (X, y), or `auto`: 15 % of the rows if there are 40 or more. If base
            or method is `auto` and rows have one label, `auto` cross-validates instead.
        class_weight: label → weight, or `balanced`; only for rows with one label.
        verbose: show progress and one line at the end: True, False, or `auto` (in a terminal or notebook).

    Attributes:
        classes_: the labels, [K], sorted. For a matrix: its columns in their order, by name where they have names.
        thresholds_: with several labels a row, the probability from which on each label is given, [K].
        summary_: what was learned from how many rows, for people.

    Example:
        >>> classifier = PromptClassifier().fit(["a quiet triumph", "a dull film"], ["good", "bad"])
        >>> classifier.predict_proba(["what a bore"]).shape
        (1, 2)
    """

    kind: ClassVar[Kind] = "classification"
    also: ClassVar[tuple[Kind, ...]] = ("multilabel",)
    classes_: np.ndarray
    thresholds_: np.ndarray
    _form: str = ""  # of y, where rows have several labels; see `LabelSets`

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
            sample_weight: [n] factors of the rows' losses.

        Raises:
            InputError: X, y or a setting that cannot be used, or a base that is not there (a ValueError as well).
            TrainingError: a loss that is not finite.
        """
        with own_errors():
            table, y = read_table(X, type(self).__name__), kept(y)
            reads = Reads.of_table(table)
            learn = self._learn_sets if has_sets(y) else self._learn_labels
            fitted, self.summary_, self.classes_, self._form = learn(table, reads, y, sample_weight)
        self._take(fitted, reads)
        return self

    def _learn_labels(self, table: Table, reads: Reads, y: Any, sample_weight: Any) -> _Learned:
        """Learn from rows with one label each."""
        who = type(self).__name__
        labels = read_labels(y, who)
        same_length(table.rows, labels, who)
        weights = read_weights(sample_weight, self.class_weight, labels, len(labels))
        classes, places = np.unique(labels, return_inverse=True)
        refuse_one_class(classes, places[weights > 0])
        texts = label_texts(classes)
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
        remembered = {"labels": kind_of(classes)}
        learn = self._choose if is_open(self.base, self.method) else self._learn
        fitted, summary = learn(task, rows, dev, remembered)
        return fitted, summary, classes, ""

    def _learn_sets(self, table: Table, reads: Reads, y: Any, sample_weight: Any) -> _Learned:
        """Learn from rows with any number of labels each."""
        who = type(self).__name__
        if (
            setting := next((name for name in ("class_weight", "label_words") if getattr(self, name)), None)
        ) is not None:
            raise InputError(f"{setting} is for rows with one label each, and y has several; leave it out")
        sets = read_sets(y, who)
        same_length(table.rows, sets.marks, who)
        weights = read_weights(sample_weight, None, None, len(sets.marks))
        refuse_alike(sets, weights)
        refuse_columns(table, sets)
        texts = label_texts(sets.classes)
        rows = set_rows(reads.rows(table, who), sets, texts, weights.tolist())
        dev = None
        if (given := self._given_dev()) is not None:
            asked, own = (
                self._values(given[0], reads, "X_dev"),
                read_sets(given[1], who, sets.classes, "y_dev", sets.form),
            )
            same_length(asked, own.marks, who)
            dev = set_rows(asked, own, texts, [1.0] * len(asked), "X_dev")
        task = Task.load(self._settings(reads, texts, kind="multilabel"))
        remembered = {"labels": kind_of(sets.classes), "sets": sets.form}
        fitted, summary = self._learn(task, rows, dev, remembered)
        return fitted, summary, sets.classes, sets.form

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Log-probabilities of `classes_`, [n, K]; with several labels a row, of each label by itself.

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
        """Probabilities of `classes_`, [n, K]; with several labels a row, of each label by itself. See
        `predict_log_proba` for what is raised."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> Any:
        """The most likely label of each row, [n] (of an ensemble that votes, that with the most votes); see
        `predict_log_proba` for what is raised.

        With several labels a row: the labels that reach their thresholds, in the form of y in `fit`. That is a matrix
        [n, K], or for sets an array of tuples [n].
        """
        if self._form:
            return as_given(self._marks(X), self.classes_, self._form)
        with own_errors():
            votes = self._known().votes
        if votes:  # the label with the most votes need not be the likeliest
            texts = label_texts(self.classes_)
            return self.classes_[[texts.index(label) for label in self._predicted(X)]]
        likely = self.predict_log_proba(X).argmax(1)
        return self.classes_[likely]

    def _marks(self, X: Any) -> np.ndarray:
        """Whether each row is given each of several labels, [n, K]."""
        return marks_of(self._predicted(X), label_texts(self.classes_))

    def _predicted(self, X: Any) -> list[Any]:
        """What each row is answered."""
        with own_errors():
            asked = self._asked(X)
            with watching(self.verbose) as (progress, _):
                return [outcome.predicted for outcome in self._known().outcomes(asked, progress)]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of rows with the right label; with several labels a row, with exactly the right labels.

        Raises:
            InputError: y holds a label that was not there in `fit`, which no answer can match.
        """
        self._known()
        who, y = type(self).__name__, kept(y)
        if self._form:
            sets, marks = read_sets(y, who, self.classes_, form=self._form), self._marks(X)
            same_length(marks, sets.marks, who)
            return float(accuracy_score(sets.marks, marks, sample_weight=sample_weight))
        right = self.classes_[places_of(read_labels(y, who), self.classes_, who)]
        return float(super().score(X, right, sample_weight))

    def _choose(
        self, task: Task, rows: list[Row], dev: list[Row] | None, remembered: Mapping[str, Any]
    ) -> tuple[Fitted, dict[str, Any]]:
        """Try what `auto` leaves open, and learn what does best; with a summary for people."""
        spec, seed = self._how()
        by_folds = dev is None and isinstance(self.dev, str) and self.dev == "auto"
        rows, dev = self._divided(task, rows, [] if by_folds else dev)
        began = time.perf_counter()
        with watching(self.verbose) as (progress, tell), LOCK:
            trainer = Trainer(task, base_of, SharedRows(), spec, seed, CACHE, progress)
            contenders = contenders_for(self.base, self.method)
            comparison, members = choose(trainer, contenders, rows, dev)
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
        right = places_of(labels, classes, who, "y_dev").tolist()
        return [
            Row({**values, "label": texts[one]}, f"X_dev[{place}]")
            for place, (values, one) in enumerate(zip(asked, right, strict=True))
        ]

    def _take(self, fitted: Fitted, reads: Reads) -> None:
        super()._take(fitted, reads)
        if not hasattr(self, "classes_"):  # of an artifact
            task, training = fitted.task, fitted.manifests[0].training
            self._form = training.get("sets", SETS) if isinstance(task, MultiLabel) else ""
            names = task.spec.labels if isinstance(task, MultiLabel) else list(task.labels)  # type: ignore[attr-defined]
            labels = labels_of(names, training.get("labels", "text"))
            self.classes_ = np.array(labels) if self._form else np.unique(labels)
        if isinstance(fitted.task, MultiLabel):
            self.thresholds_ = np.array(fitted.task.thresholds)
        elif hasattr(self, "thresholds_"):
            del self.thresholds_

    def __sklearn_tags__(self) -> Any:
        """Texts, alone or in columns (scikit-learn's checks bring numbers in columns)."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.classifier_tags.multi_label = True
        return tags


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
