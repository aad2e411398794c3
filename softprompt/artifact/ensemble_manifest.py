"""What `ensemble.json` holds: members, weights, and how they answer together.

Format 2 names how the answers are combined. An ensemble that combines log-probabilities is written in format 1, which
earlier versions read.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_serializer, model_validator
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from ..errors import ArtifactError
from ..storage import digest_of
from ..version import __version__
from .manifest import Exact, MetricRecord, Sha256, json_text
from .parsing import parse_content, refuse_newer

MAX_MEMBERS = 16
ENSEMBLE_VERSION = 2
Combine = Literal["log_probs", "probs", "vote"]
"""How members answer together: by the weighted mean of their log-probabilities, of their probabilities, or by votes."""
MemberName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\z", max_length=80)]


class MemberBase(Exact):
    """The base that a member needs: its id is for people, its digest decides."""

    id: str
    digest: str


class MemberRecord(Exact):
    """One artifact of an ensemble.

    Attributes:
        name: of its folder in `members`.
        weight: how much its answers count.
        manifest_sha256: of the bytes of its `manifest.json`, which vouches for its other files.
    """

    name: MemberName
    weight: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    base: MemberBase
    manifest_sha256: Sha256


class EnsembleManifest(Exact):
    """Everything about an ensemble but its members' own files.

    Attributes:
        softprompt: version that wrote it.
        members: the first one's task names fields and metric. The weights' sum is 1.
        combine: how they answer together; in the file only in format 2, which is the format of all but `log_probs`.
        metrics: of the whole ensemble, by split.
        dev_rows: on how many rows the weights were chosen; None where they were given.
        ensemble_sha256: of all the rest, as canonical JSON; `to_json` fills it in.
    """

    format_version: Literal[1, 2] = 1
    softprompt: str = __version__
    members: list[MemberRecord] = Field(min_length=2, max_length=MAX_MEMBERS)
    combine: Combine = "log_probs"
    metrics: dict[str, MetricRecord] = Field(default_factory=dict)
    dev_rows: PositiveInt | None = None
    ensemble_sha256: Sha256 | None = None

    @field_validator("members")
    @classmethod
    def _fit_together(cls, members: list[MemberRecord]) -> list[MemberRecord]:
        if len({one.name.lower() for one in members}) < len(members):
            raise ValueError("two members have the same name")
        total = sum(one.weight for one in members)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the weights' sum is {total:.6g}, expected 1")
        return members

    @model_validator(mode="after")
    def _in_its_format(self) -> EnsembleManifest:
        """One content has one form, and an earlier version refuses what it would combine in another way."""
        if self.format_version != format_of(self.combine):
            raise ValueError(f"combine is {self.combine!r} in format version {self.format_version}; it was changed")
        return self

    @model_serializer(mode="wrap")
    def _without_default(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Ensembles of format 1 stay as they were, and so do their digests."""
        return {key: value for key, value in serialize(self).items() if key != "combine" or value != "log_probs"}

    @property
    def weights(self) -> list[float]:
        """Of the members, in their order."""
        return [one.weight for one in self.members]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, as in the file."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        """The text of the file."""
        data = {key: value for key, value in self.as_dict().items() if key != "ensemble_sha256"}
        return json_text({**data, "ensemble_sha256": digest_of(data)})

    @staticmethod
    def from_dict(data: dict[str, Any], where: str) -> EnsembleManifest:
        """Check what was read.

        Raises:
            ArtifactError: a newer format, fields that do not fit, or changed since it was written.
        """
        version = data.get("format_version")
        if isinstance(version, int) and not isinstance(version, bool):
            refuse_newer("ensemble", version, ENSEMBLE_VERSION, where)
        manifest = parse_content(EnsembleManifest, data, where)
        digest = digest_of({key: value for key, value in data.items() if key != "ensemble_sha256"})
        if digest != manifest.ensemble_sha256:
            raise ArtifactError(
                f"{where}: was changed after it was written (its sha256 is {digest[:16]}…, it says "
                f"{str(manifest.ensemble_sha256)[:16]}…); copy the ensemble again"
            )
        return manifest


def format_of(combine: Combine) -> int:
    """The earliest format that holds this way of answering."""
    return 1 if combine == "log_probs" else 2
