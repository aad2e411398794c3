"""A task as data: where rows come from, how they become text, what the answers are, how they are scored."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from ..config import Strict, suggest
from ..errors import ConfigError
from ..template import TemplateSpec
from ..values import shown

Auto = Literal["auto"]
_NUMBER = re.compile(r"[0-9]+|0?\.[0-9]+")
Size = NonNegativeInt | Annotated[float, Field(ge=0, lt=1)] | None


class SplitSpec(Strict):
    """Sizes of the splits: rows, a fraction, or null for all the rest. Seeded, stratified, disjoint.

    Sizes that are not given are 1024, 256 and the rest for data of the catalogue. Other rows are divided 70 : 15 : 15 if none
    is given, or if that does not fit.

    Attributes:
        train, dev, test: rows, a fraction below 1, or null for all the rest.
        seed: for the order in which rows are drawn.
        group: a field; rows that share its value go to the same split. Splits are stratified only if no group has two
            labels.
    """

    train: Size | Auto = Field(default="auto", examples=[0.7])
    dev: Size | Auto = Field(default="auto", examples=[0.15])
    test: Size = Field(default=None, examples=[0.15])
    seed: int = Field(default=0, ge=0)
    group: str | None = Field(default=None, examples=["author"])

    @field_validator("train", "dev", "test", mode="before")
    @classmethod
    def _is_rows_or_a_part(cls, size: Any) -> Any:
        if isinstance(size, float) and size == 1:
            raise ValueError("is 1.0, which may be all rows or one; write null for all the rest, 1 for one")
        number = isinstance(size, (int, float)) and not isinstance(size, bool)
        if (number and not (0 <= size < 1 or (size >= 1 and size % 1 == 0))) or (
            isinstance(size, str) and size != "auto" and not _NUMBER.fullmatch(size)
        ):
            raise ValueError(
                f"is {shown(size)}; expected rows, a fraction below 1 such as 0.8, or null for all the rest"
            )
        return size

    @model_serializer(mode="wrap")
    def _with_all(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Null says something here ("all the rest") and is no default, so it stays; a size that is not given stays out."""
        sizes: dict[str, Any] = {name: getattr(self, name) for name in ("train", "dev")}
        found = {name: value for name, value in serialize(self).items() if sizes.get(name) != "auto"}
        return {**found, **{name: None for name, size in sizes.items() if size is None}}


class HoldOutSpec(Strict):
    """The test rows are those whose `field` has one of `values`. Other rows with the same text (or group) are left out.

    `split.test` is a sample of them, null all of them; `split.train` and `split.dev` are of the others.

    Attributes:
        field: the field that decides.
        values: its values in test rows.
    """

    field: str = Field(examples=["language"])
    values: list[str] = Field(min_length=1, examples=[["fr", "it"]])


class DataSpec(Strict):
    """Where rows come from.

    Attributes:
        source: a catalogue name (`softprompt data list`), a JSONL/CSV/Parquet file, or `datasets:NAME`; it is split.
        train, dev, test: files of their own, instead of `source`.
        columns: our field name → the file's column name, or a list of names: the first that a row has is used.
        skip_unlabelled: leave out and count rows without a label (null, empty, -1); otherwise they are an error. Null:
            only rows of `datasets:`, which cannot be edited, are left out.
        skip_leaked: leave out and count rows of train (or dev) whose text is also in dev or test; null: as above. It
            matters for `train`, `dev` and `test`; one `source` never has a text in two splits.
        on_bad_rows: what happens to rows that cannot be used: an empty or missing cell, no label or an unknown one.
            `skip` leaves them out and counts them. `refuse` (also null) is an error that lists them by file and line.
        split: sizes of the splits of `source`.
        hold_out: which rows of `source` are the test rows (see `HoldOutSpec`).
    """

    source: str | None = Field(default=None, examples=["rows.jsonl"])
    train: str | None = Field(default=None, examples=["train.jsonl"])
    dev: str | None = Field(default=None, examples=["dev.jsonl"])
    test: str | None = Field(default=None, examples=["test.jsonl"])
    columns: dict[str, str | Annotated[list[str], Field(min_length=1)]] = Field(
        default_factory=dict, examples=[{"label": "team"}]
    )
    split: SplitSpec = Field(default_factory=SplitSpec)
    hold_out: HoldOutSpec | None = None
    skip_unlabelled: bool | None = None
    skip_leaked: bool | None = None
    on_bad_rows: Literal["refuse", "skip"] | None = None

    @property
    def separate(self) -> dict[str, str]:
        """Files of their own, by split."""
        return {part: path for part in ("train", "dev", "test") if (path := getattr(self, part)) is not None}

    @property
    def problem(self) -> str | None:
        """Why it names no rows, or contradicts itself; or None."""
        separate = self.separate
        if self.source is None and not separate:
            return (
                "data.source is missing: a catalogue name, a file, or datasets:NAME; write data: {source: rows.jsonl}"
            )
        if self.source is not None and separate:
            return f"give data.source or data.{next(iter(separate))}, not both"
        if separate and self.hold_out is not None:
            return "data.hold_out takes test rows from data.source; with files of their own, give data.test"
        return None

    @model_serializer(mode="wrap")
    def _without_later_keys(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A key that earlier versions did not know stays out where it says nothing: digests of their tasks stay."""
        return {key: value for key, value in serialize(self).items() if key != "on_bad_rows" or value is not None}


class DemonstrationSpec(Strict):
    """k labelled rows in front of every row. `rows` holds them once they are drawn, so that an artifact contains them.

    Attributes:
        k: how many demonstrations.
        seed: for the draw.
        rows: the rows themselves; if left out, they are drawn from the training rows.
    """

    k: int = Field(default=0, ge=0, le=100)
    seed: int = Field(default=0, ge=0)
    rows: list[dict[str, Any]] = Field(
        default_factory=list, max_length=100, examples=[[{"text": "It was fun.", "label": "positive"}]]
    )


class TaskSpec(Strict):
    """What all task files share, version 1. Each type adds its own keys.

    Attributes:
        version: version of this format.
        name: used in artifacts and tables.
        type: what an answer is: `classification`, `choice`, `generation`, `span`, `tagging`, `multilabel` or a
            registered type.
        data: where rows come from.
        template: how a row becomes text.
        demonstrations: labelled rows in front of every row.
        metric: what is reported; if answers are scored, it also chooses on dev (see docs/metrics.md).
        max_text_tokens: longer row texts are cut (and counted), or read in windows if a head reads their tokens. Null:
            what fits the base.
    """

    version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80, examples=["tickets"])
    type: str = "classification"
    data: DataSpec = Field(default_factory=DataSpec)
    template: TemplateSpec = Field(examples=[{"input": "Text: {{ text }}", "cue": "\nLabel:"}])
    demonstrations: DemonstrationSpec = Field(default_factory=DemonstrationSpec)
    metric: str = "accuracy"
    max_text_tokens: PositiveInt | None = Field(default=None, examples=[256])


def refuse_formless(kind: type, what: str) -> None:
    """Refuse a task type of the contract before, which does not name its form.

    Raises:
        ConfigError: says what to set.
    """
    if not hasattr(kind, "form"):
        raise ConfigError(
            f"{what} ({kind.__module__}.{kind.__qualname__}) does not say how its rows are answered; "
            "set its `form`, e.g. form = 'chosen' (docs/upgrading.md)"
        )


def refuse_metric(spec: TaskSpec, metrics: Sequence[str]) -> None:
    """Refuse a metric that does not fit the task's type.

    Raises:
        ConfigError: with those that do.
    """
    if spec.metric not in metrics:
        raise ConfigError(f"metric {spec.metric!r} does not fit type {spec.type!r}{suggest(spec.metric, metrics)}")


def refuse_demonstrations(spec: TaskSpec, check_row: Callable[[dict[str, Any]], str | None]) -> None:
    """Refuse demonstrations of another number than is asked for, and those that are no rows of the task.

    Raises:
        ConfigError: all that is wrong with them.
    """
    wanted, rows = spec.demonstrations.k, spec.demonstrations.rows
    if wanted and rows and wanted != len(rows):
        raise ConfigError(
            f"demonstrations.k is {wanted}, demonstrations.rows holds {len(rows)}; leave k out, or rows to have them drawn"
        )
    told = [(place, check_row(values)) for place, values in enumerate(rows)]
    if problems := [f"demonstrations.rows[{place}]: {problem}" for place, problem in told if problem]:
        raise ConfigError("; ".join(problems), problems)
