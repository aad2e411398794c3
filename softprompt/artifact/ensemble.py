"""`ensemble.json`: artifacts that answer together, each on its own base, and what each one counts.

ensemble.json       the members, their weights and bases, sha256 of each member's manifest and of itself
members/NAME/       an artifact as everywhere
README.md           card
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import ArtifactError
from ..storage import atomic_folder, digest_of
from .checks import list_names
from .ensemble_manifest import Combine, EnsembleManifest, MemberRecord, format_of
from .files import MAX_JSON_BYTES, WHOLE_MODEL, read_bytes, read_json, steadily
from .hub import check_digest, fetched
from .manifest import Manifest
from .parsing import parse_content
from .store import CARD, ENSEMBLE, MANIFEST, MEMBERS, Artifact, load, refuse_foreign


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
    def files(self) -> list[str]:
        """Names of its own files, those of its members among them."""
        members = [f"{MEMBERS}/{name}/{file}" for name, member in self.members.items() for file in member.files]
        return [name for name in (CARD, ENSEMBLE) if os.path.lexists(self.path / name)] + members

    @property
    def size(self) -> int:
        """Bytes on disk of the members' own files and of `ensemble.json`."""
        return (self.path / ENSEMBLE).stat().st_size + sum(one.size for one in self.members.values())


def is_ensemble(folder: str | Path) -> bool:
    """Whether a folder, or the artifact in a run's folder, claims to be an ensemble; `load_ensemble` checks it."""
    return os.path.lexists(_locate(fetched(folder)[0]) / ENSEMBLE)


def _locate(folder: Path) -> Path:
    """The folder itself, or `artifact/` of a run that made an ensemble."""
    inside = folder / "artifact"
    return inside if not os.path.lexists(folder / ENSEMBLE) and os.path.lexists(inside / ENSEMBLE) else folder


def load_ensemble(folder: str | Path, check: Callable[[Manifest], object] | None = None) -> Ensemble:
    """Read and check an ensemble with all its members (`check`: see `load`). Nothing in it is run, unpickled or fetched.

    Args:
        folder: the ensemble, or the folder of the run that made it; or `hub:OWNER/NAME`.

    Raises:
        ArtifactError: the artifact cannot be read or was changed; one line says what differs.
    """
    source, wanted = fetched(folder)
    path = _locate(source)
    found = steadily(path, lambda: _load(path, check))
    check_digest(folder, wanted, found.digest)
    return found


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
    manifest = parse_content(EnsembleManifest, {**data, "format_version": format_of(combine)}, str(folder))
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
    for name in member.files:
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
