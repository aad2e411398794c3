"""Multi-label classification: a row has any number of a fixed list of labels, also none, each decided by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from ..config import suggest
from ..data import Row
from ..errors import ConfigError
from ..metrics import metrics_for
from ..types import Example
from ..values import composed, is_blank, kind, not_text, plain, shown, text_of
from .listed import ListedTask
from .spec import TaskSpec

MAX_LABELS = 10_000
HALF = 0.5
_LISTED = 6  # labels that a remark names
MARKS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
"""What a column of a label may hold, in small letters, and whether a row then has the label."""
_EXPECTED = 'expected a list of labels, e.g. ["a", "b"]'

Probability = Annotated[float, Field(gt=0, lt=1)]


class MultiLabelSpec(TaskSpec):
    """A task of type `multilabel`.

    Attributes:
        labels: all labels, in the order of the head's logits.
        separator: separator of a row's labels in a table that holds them as one text.
        thresholds: the probability from which on a row gets a label: one for all, or label → its own (others: 0.5).
            Null: training chooses each label's threshold on dev rows, and the artifact records them.
    """

    metric: str = "micro_f1"
    labels: list[str] = Field(default_factory=list, max_length=MAX_LABELS, examples=[["price", "delivery", "quality"]])
    separator: str = Field(default=";", min_length=1, max_length=20)
    thresholds: Probability | dict[str, Probability] | None = Field(default=None, examples=[{"price": 0.3}])

    @field_validator("metric")
    @classmethod
    def _of_sets(cls, value: str) -> str:
        if value == "macro_f1":
            raise ValueError("is macro_f1, which is for one label a row; write macro_f1_sets")
        return value

    @field_validator("labels", mode="before")
    @classmethod
    def _as_texts(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return value
        return [text_of(one) if isinstance(one, bool) or not not_text(one) else one for one in value]


class MultiLabel(ListedTask):
    """Rows with `labels`, a list or a text with `separator` between them; or with a column of 0 and 1 for each label.

    An empty list, or an empty text, says that the row has none of the labels; null says that they are not known.
    """

    Spec = MultiLabelSpec
    form = head_form = "decided"
    metrics: ClassVar[tuple[str, ...]] = tuple(metrics_for("sets"))
    answer_fields: tuple[str, ...] = ("labels",)
    listed = "labels"
    spec: MultiLabelSpec

    def check(self) -> None:
        """Labels must differ, and thresholds name labels."""
        labels = self.spec.labels
        self._named = {composed(label): label for label in labels}
        if len(self._named) < len(labels):
            forms = [composed(label) for label in labels]
            twice = next(label for label, form in zip(labels, forms, strict=True) if forms.count(form) > 1)
            raise ConfigError(f"labels: {twice!r} stands there twice; keep one")
        if any(map(is_blank, labels)):
            raise ConfigError("labels holds an empty one; give it a name")
        self.places = {label: place for place, label in enumerate(labels)}
        given = self.spec.thresholds
        if labels and isinstance(given, dict) and (other := [label for label in given if label not in self.places]):
            raise ConfigError(f"thresholds names {other[0]!r}, which labels does not list{suggest(other[0], labels)}")
        # a column that the template reads is no column of a label
        self._columns = [] if {*labels} & self.fields else labels
        self.answer_fields = ("labels", *self._columns)

    @property
    def thresholds(self) -> list[float]:
        """The probability from which on each label is given, [K]."""
        given = self.spec.thresholds
        if isinstance(given, dict):
            return [given.get(label, HALF) for label in self.spec.labels]
        return [HALF if given is None else given] * len(self.spec.labels)

    def with_thresholds(self, thresholds: Sequence[float]) -> MultiLabel:
        """The same task with these thresholds, one for each label."""
        named = dict(zip(self.spec.labels, thresholds, strict=True))
        return type(self)(self.spec.model_copy(update={"thresholds": named}), self.folder, self.rules)

    def check_row(self, values: dict[str, Any]) -> str | None:
        """Fields and labels must be there, and each label one of the task's, once."""
        return self.check_input(values) or self._read(values)[1]

    def unlabelled(self, values: dict[str, Any]) -> bool:
        """Whether nothing is said of a row's labels; an empty list or text says that it has none."""
        if _known(values, "labels"):
            return False
        return not self._columns or all(not _known(values, name) or values[name] == "" for name in self._columns)

    def gold(self, values: dict[str, Any]) -> list[str] | None:
        """The row's labels in the task's order; None where they are not known, or cannot be read."""
        labels, problem = self._read(values)
        return None if problem else sorted(labels, key=lambda label: self.places.get(label, 0))

    def _read(self, values: dict[str, Any]) -> tuple[list[str], str | None]:
        """A row's labels, and what is wrong with them."""
        if _known(values, "labels"):
            return self._listed(plain(values["labels"]))
        absent = [name for name in self._columns if name not in values]
        if not self._columns or len(absent) == len(self._columns):
            if "labels" in values:
                return [], f"labels is {shown(values['labels'])}; {_EXPECTED}, or [] where a row has none"
            return [], f"missing field 'labels'{suggest('labels', map(str, values))}"
        if absent:
            return [], f"missing field 'labels', or a column for each label (there is none for {absent[0]!r})"
        return self._marked(values)

    def _listed(self, value: Any) -> tuple[list[str], str | None]:
        """Labels of a list, or of a text with the separator between them."""
        if isinstance(value, str):
            value = [text.strip() for text in value.split(self.spec.separator) if not is_blank(text)]
        elif not isinstance(value, (list, tuple)):
            also = f", or a text with {self.spec.separator!r} between them"
            return [], f"labels is {shown(value)}; {_EXPECTED}{also}"
        labels: list[str] = []
        for place, one in enumerate(value):
            if (not_text(one) and not isinstance(one, bool)) or is_blank(text_of(one)):
                return [], f"labels[{place}] is {shown(one)}; expected the name of a label"
            text = text_of(one)
            label = self._named.get(composed(text)) if self.spec.labels else text
            if label is None:
                return [], f"label {shown(text)} is none that task.labels lists{suggest(text, self.places)}"
            if label in labels:
                return [], f"label {shown(label)} stands there twice; name it once"
            labels.append(label)
        return labels, None

    def _marked(self, values: dict[str, Any]) -> tuple[list[str], str | None]:
        """Labels of columns that say of each whether the row has it."""
        labels = []
        for name in self._columns:
            value = plain(values[name])
            mark = None if kind(value) not in ("a text", "a number", "true", "false") else text_of(value).strip()
            if mark is None or mark.lower() not in MARKS:
                return [], f"column {name!r} is {shown(value)}; expected 1 where the row has the label, else 0"
            if MARKS[mark.lower()]:
                labels.append(name)
        return labels, None

    def candidates(self, values: dict[str, Any]) -> tuple[list[str], int | None]:
        """All labels of a row as one text, where they are known."""
        labels = self.gold(values)
        return ([", ".join(labels) or "none"], 0) if labels is not None else ([], None)

    def label(self, row: Row) -> Hashable:
        """The set as a whole."""
        return tuple(self.gold(row.values) or ())

    def strata(self, rows: Sequence[Row]) -> Callable[[Row], Hashable]:
        """Each row's rarest label: whole sets mostly stand there once, and such rows would all be trained on."""
        sets = {id(row): self.gold(row.values) or [] for row in rows}
        counts = Counter(label for labels in sets.values() for label in labels)
        rarest = {
            place: min(labels, key=lambda label: (counts[label], label), default="") for place, labels in sets.items()
        }
        return lambda row: rarest[id(row)]

    def remarks(self, splits: Mapping[str, Sequence[Row | Example]]) -> list[tuple[str, str]]:
        """Labels that no training row has."""
        known = [labels for row in splits.get("train", ()) if (labels := self.gold(row.values)) is not None]
        there = {label for labels in known for label in labels}
        missing = [label for label in self.spec.labels if label not in there]
        if not known or not missing:
            return []
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        names = ", ".join(map(repr, missing[:_LISTED])) + more
        return [(f"train: no row has the label {names}", "it is never learned: add rows, or remove it from labels")]

    def floor(self, metric: str, rows: Sequence[dict[str, Any]]) -> tuple[float, str]:
        """As ever, of sets."""
        return super().floor(metric, rows)[0], "the best set that is the same for all rows"


def _known(values: dict[str, Any], name: str) -> bool:
    return kind(values.get(name)) not in ("null", "NaN")
