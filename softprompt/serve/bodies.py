"""What requests and answers hold, as pydantic models: FastAPI checks them and writes the OpenAPI schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Text = Annotated[str, Field(min_length=1)]
MOST_FIELDS = 100
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Body(BaseModel):
    """A body, or an object in one. The first problem ends its check, so one of millions of wrong values costs no time."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, values: Any) -> Any:
        if isinstance(values, dict) and len(values) > MOST_FIELDS:
            raise ValueError(f"has more than {MOST_FIELDS} fields")
        return values


class Question(Body):
    """Texts for artifacts. Each artifact answers each text; a text is read once for all that can share it.

    Attributes:
        model: an artifact.
        models: several of them.
        text: a text, or an object with the fields that the artifacts read.
        texts: several of them.
        truncate: cut texts that are longer than the base can read.
    """

    model: Name | None = None
    models: Annotated[list[Name], Field(fail_fast=True)] | None = Field(default=None, min_length=1)
    text: Text | dict[str, Any] | None = None
    texts: Annotated[list[Text | dict[str, Any]], Field(fail_fast=True)] | None = Field(default=None, min_length=1)
    truncate: bool = False

    @model_validator(mode="after")
    def _one_of_each(self) -> Question:
        for one, many in (("model", "models"), ("text", "texts")):
            if (getattr(self, one) is None) == (getattr(self, many) is None):
                raise ValueError(f"give either {one} or {many}")
        if self.models is not None and len(set(self.models)) < len(self.models):
            raise ValueError("models names an artifact twice")
        return self

    @property
    def names(self) -> list[str]:
        """The artifacts."""
        return self.models if self.models is not None else [str(self.model)]

    @property
    def rows(self) -> list[str | dict[str, Any]]:
        """The texts."""
        return self.texts if self.texts is not None else [self.text or ""]


class Answered(BaseModel):
    """An answer of one artifact to one text.

    Attributes:
        index: which of the texts.
        artifact: which artifact.
        label, probabilities: of one label; of sets of labels `labels` and `probabilities`.
        agreement: of an ensemble, the share of its members (by weight) whose own best label is the answer, 0 to 1.
        text, tags, spans: of `/v1/extract`.
        truncated: the text was cut.
    """

    model_config = ConfigDict(extra="allow")

    index: int
    artifact: str
    truncated: bool
    agreement: float | None = None


class Timed(BaseModel):
    """Where the time went, in milliseconds; of all that ran in the same batch.

    Attributes:
        queued: before the batch began.
        read: reading texts that several artifacts share.
        answered: all that stands behind them.
    """

    queued: float
    read: float
    answered: float


class Answers(BaseModel):
    """All answers, text by text and in each in the order of the artifacts."""

    results: list[Answered]
    timing_ms: Timed


class Model(BaseModel):
    """A base, or an artifact.

    Attributes:
        id: what requests call it.
        parent: of an artifact, its base.
        type: of an artifact, its task's type.
        method: of an artifact, how it was made.
        fields: of an artifact, what its texts hold.
    """

    id: str
    object: Literal["model"]
    owned_by: str
    parent: str | None = None
    type: str | None = None
    method: str | None = None
    fields: list[str] | None = None


class Models(BaseModel):
    """All that may be asked."""

    object: Literal["list"]
    data: list[Model]


class NewArtifact(Body):
    """An artifact to load.

    Attributes:
        name: under which it answers.
        folder: where it lies, in one of the folders that the server was started with; or hub:OWNER/NAME, of an OWNER that
            it was started with.
    """

    name: Name
    folder: str = Field(min_length=1, max_length=4096)


class Problem(BaseModel):
    """What was wrong, in one sentence that says what to do."""

    error: str
