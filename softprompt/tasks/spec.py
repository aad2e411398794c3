"""A task as data: where rows come from, how they become text, what the answers are, how they are scored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from ..config import Strict
from ..template import TemplateSpec

Size = NonNegativeInt | Annotated[float, Field(ge=0, lt=1)] | None


class SplitSpec(Strict):
    """Sizes of the splits: rows, a fraction, or null for all the rest. Seeded, stratified, disjoint."""

    train: Size = 1024
    dev: Size = 256
    test: Size = None
    seed: int = Field(default=0, ge=0)


class DataSpec(Strict):
    """Where rows come from.

    Attributes:
        source: a catalogue name (`softprompt data list`), a JSONL/CSV/Parquet file, or `datasets:NAME`; it is split.
        train, dev, test: files of their own, instead of `source`.
        columns: our field name → the file's column name.
    """

    source: str | None = None
    train: str | None = None
    dev: str | None = None
    test: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    split: SplitSpec = Field(default_factory=SplitSpec)


class DemonstrationSpec(Strict):
    """k labelled rows in front of every row; `rows` holds them once they are drawn, so that an artifact carries them."""

    k: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0)
    rows: list[dict[str, Any]] = Field(default_factory=list)


class ScoringSpec(Strict):
    """How candidates are compared.

    Attributes:
        normalize: `tokens` divides the log-likelihood by the answer's length; `none` takes it as it is.
        calibration: `contextual` (Zhao et al. 2021, arXiv:2102.09690) subtracts the score that the same prompt gives on
            content-free inputs.
        content_free: those inputs.
    """

    normalize: Literal["tokens", "none"] = "tokens"
    calibration: Literal["none", "contextual"] = "none"
    content_free: list[str] = Field(default_factory=lambda: ["N/A", "", "[MASK]"], min_length=1)


class TaskSpec(Strict):
    """The task file, version 1.

    Attributes:
        name: used in artifacts and tables.
        type: what an answer is; one of `softprompt.tasks` in the registry.
        verbalizer: label → its word or words.
        metric: what decides on dev.
        max_text_tokens: longer row texts are cut (and counted); default: what fits the base.
    """

    version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    type: str = "classification"
    data: DataSpec = Field(default_factory=DataSpec)
    template: TemplateSpec
    verbalizer: dict[str, list[str]] = Field(default_factory=dict)
    demonstrations: DemonstrationSpec = Field(default_factory=DemonstrationSpec)
    scoring: ScoringSpec = Field(default_factory=ScoringSpec)
    metric: Literal["accuracy", "macro_f1", "mcc"] = "accuracy"
    max_text_tokens: PositiveInt | None = None

    @field_validator("verbalizer", mode="before")
    @classmethod
    def _words_as_lists(cls, value: Any) -> Any:
        if isinstance(value, list):
            value = {str(label): str(label) for label in value}
        if isinstance(value, dict):
            # YAML reads yes/no and 0/1 as other types; a label is always text
            return {_text(label): _words(label, words) for label, words in value.items()}
        return value


def _text(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _words(label: Any, words: Any) -> Any:
    if words is None:
        return [_text(label)]
    if isinstance(words, (str, int, float, bool)):
        return [_text(words)]
    return words
