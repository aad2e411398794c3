"""`ensemble.json`: artifacts that answer together, each on its own base, and what each one counts.

ensemble.json       the members, their weights and bases, sha256 of each member's manifest and of itself
members/NAME/       an artifact as everywhere
README.md           card

Format 2 names how the answers are combined. An ensemble that combines log-probabilities is written in format 1, which
earlier versions read.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_serializer, model_validator
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from ..config import parse
from ..errors import ArtifactError, ConfigError
from ..storage import atomic_folder, digest_of
from ..version import __version__
from .checks import list_names
from .files import MAX_JSON_BYTES, WHOLE_MODEL, one_line, read_bytes, read_json, steadily
from .manifest import Exact, Manifest, MetricRecord, Sha256, json_text
from .store import CARD, CONFIG, ENSEMBLE, MANIFEST, MEMBERS, Artifact, load, refuse_foreign

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
        if self.format_version != _format_of(self.combine):
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
        if isinstance(version, int) and not isinstance(version, bool) and version > ENSEMBLE_VERSION:
            raise ArtifactError(
                f"{where}: the ensemble has format version {version}, softprompt {__version__} reads up to "
                f"{ENSEMBLE_VERSION}; update with `pip install -U softprompt`"
            )
        try:
            manifest = parse(EnsembleManifest, data, where)
        except ConfigError as error:
            raise ArtifactError(one_line(str(error))) from None
        digest = digest_of({key: value for key, value in data.items() if key != "ensemble_sha256"})
        if digest != manifest.ensemble_sha256:
            raise ArtifactError(
                f"{where}: was changed after it was written (its sha256 is {digest[:16]}…, it says "
                f"{str(manifest.ensemble_sha256)[:16]}…); copy the ensemble again"
            )
        return manifest


def _format_of(combine: Combine) -> int:
    return 1 if combine == "log_probs" else 2


@dataclass(frozen=True)
class Ensemble:
    """A loaded ensemble.

    Attributes:
        members: by name, in the manifest's order.
        path: its folder.
    """

    manifest: EnsembleManifest
    members: dict[str, Artifact]
    path: Path

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of the manifest and through it of all members: equal content is one ensemble."""
        return digest_of(self.manifest.as_dict())

    @property
    def size(self) -> int:
        """Bytes on disk of the members' own files and of `ensemble.json`."""
        return (self.path / ENSEMBLE).stat().st_size + sum(one.size for one in self.members.values())


def is_ensemble(folder: str | Path) -> bool:
    """Whether a folder, or the artifact in a run's folder, claims to be an ensemble; `load_ensemble` checks it."""
    return os.path.lexists(_locate(Path(folder)) / ENSEMBLE)


def _locate(folder: Path) -> Path:
    """The folder itself, or `artifact/` of a run that made an ensemble."""
    inside = folder / "artifact"
    return inside if not os.path.lexists(folder / ENSEMBLE) and os.path.lexists(inside / ENSEMBLE) else folder


def load_ensemble(folder: str | Path, check: Callable[[Manifest], object] | None = None) -> Ensemble:
    """Read and check an ensemble with all its members (`check`: see `load`). Nothing in it is run, unpickled or fetched.

    Raises:
        ArtifactError: the artifact cannot be read or was changed; one line says what differs.
    """
    path = _locate(Path(folder))
    return steadily(path, lambda: _load(path, check))


def _load(path: Path, check: Callable[[Manifest], object] | None = None) -> Ensemble:
    manifest = EnsembleManifest.from_dict(read_json(path, ENSEMBLE), str(path / ENSEMBLE))
    names = [one.name for one in manifest.members]
    if extra := sorted({entry.name for entry in (path / MEMBERS).glob("*")} - set(names)):
        raise ArtifactError(
            f"{path / MEMBERS}: holds {list_names(extra)}, which {ENSEMBLE} does not name; it was changed"
        )
    return Ensemble(manifest, {one.name: _member(path, one, check) for one in manifest.members}, path)


def _member(path: Path, record: MemberRecord, check: Callable[[Manifest], object] | None) -> Artifact:
    folder = path / MEMBERS / record.name
    if os.path.realpath(folder) != str(Path(os.path.realpath(path), MEMBERS, record.name)):
        raise ArtifactError(f"{folder}: leads out of the ensemble's folder; copy the folder with `cp -rL`")
    digest = hashlib.sha256(read_bytes(folder, MANIFEST, MAX_JSON_BYTES * WHOLE_MODEL)).hexdigest()
    if digest != record.manifest_sha256:
        raise ArtifactError(
            f"{folder / MANIFEST}: sha256 is {digest[:16]}…, {ENSEMBLE} says {record.manifest_sha256[:16]}…; the member "
            "was changed, copy the ensemble again"
        )
    member = load(folder, check)
    if member.manifest.base.digest != record.base.digest:
        raise ArtifactError(f"{folder}: is not of the base that {ENSEMBLE} says; the ensemble was changed")
    return member


def write_ensemble(
    folder: str | Path,
    members: Mapping[str, Artifact],
    weights: Sequence[float],
    readme: str,
    metrics: Mapping[str, Mapping[str, Any]] | None = None,
    dev_rows: int | None = None,
    combine: Combine = "log_probs",
) -> Ensemble:
    """Write an ensemble; equal arguments give equal bytes. An earlier one in `folder` is replaced in one step.

    Args:
        members: saved artifacts by the names that their folders get.
        weights: of each member; their sum is 1.
        metrics: of the ensemble, by split.

    Raises:
        ArtifactError: weights or names that do not fit; a member that was never saved; the folder holds something else.
        SoftpromptError: it cannot be written (full disk, permissions).
    """
    target = Path(os.path.realpath(folder))
    _refuse_others(target, str(folder))
    records = [
        {"name": name, "weight": float(weight), "base": _base_of(member), "manifest_sha256": _sha256(member)}
        for (name, member), weight in zip(members.items(), weights, strict=True)
    ]
    data = {"members": records, "metrics": dict(metrics or {}), "dev_rows": dev_rows, "combine": combine}
    try:
        manifest = parse(EnsembleManifest, {**data, "format_version": _format_of(combine)}, str(folder))
    except ConfigError as error:
        raise ArtifactError(one_line(str(error))) from None
    with atomic_folder(target) as temporary:
        for name, member in members.items():
            _copy(member, temporary / MEMBERS / name)
        (temporary / ENSEMBLE).write_text(manifest.to_json(), encoding="utf-8")
        (temporary / CARD).write_text(readme, encoding="utf-8")
        _load(temporary)  # what we could not read back must not be written either
    return load_ensemble(target)


def check_ensemble_place(folder: Path) -> None:
    """Refuse a folder for an ensemble before the work is done.

    Raises:
        ArtifactError: it holds something else.
    """
    _refuse_others(Path(os.path.realpath(folder)), str(folder))


def _base_of(member: Artifact) -> dict[str, str]:
    return {"id": member.manifest.base.id, "digest": member.manifest.base.digest}


def _sha256(member: Artifact) -> str:
    if member.path is None:
        raise ArtifactError("an ensemble is made of saved artifacts, and one was never saved; save it first")
    return hashlib.sha256(read_bytes(member.path, MANIFEST, MAX_JSON_BYTES * WHOLE_MODEL)).hexdigest()


def _copy(member: Artifact, to: Path) -> None:
    assert member.path is not None
    to.mkdir(parents=True)
    for name in {MANIFEST, CARD, CONFIG, member.manifest.tensors_file, *member.manifest.files}:
        if os.path.lexists(member.path / name):
            (to / name).write_bytes(read_bytes(member.path, name, sys.maxsize))  # refuses links out of the folder


def _refuse_others(target: Path, where: str) -> None:
    """Only an empty place or an ensemble of ours may be replaced: anything else is somebody's work."""
    if not os.path.lexists(target / ENSEMBLE):
        refuse_foreign(target, where)
        if target.is_dir() and any(target.iterdir()):
            raise ArtifactError(f"{where}: holds an artifact, not an ensemble; choose another folder")
        return
    foreign = sorted({entry.name for entry in target.iterdir()} - {ENSEMBLE, MEMBERS, CARD})
    if foreign:
        raise ArtifactError(
            f"{where}: holds {list_names(foreign)}, which is no part of an ensemble; choose another folder"
        )
    for member in (target / MEMBERS).glob("*"):
        refuse_foreign(member, str(member))
