"""Writing and reading artifact folders: whole or not at all, and never anything but data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import ArtifactError
from ..storage import atomic_folder, canonical_json, sha256_file, write_json
from .manifest import Manifest

TENSORS, CONFIG, MANIFEST, CARD = "adapter_model.safetensors", "adapter_config.json", "manifest.json", "README.md"
_OURS = {TENSORS, CONFIG, MANIFEST, CARD}
_PICKLES = ("adapter_model.bin", "pytorch_model.bin", "adapter_model.pt", "adapter_model.pth")


@dataclass(frozen=True)
class Artifact:
    """A loaded artifact: its manifest, its tensors (fp32, CPU), and where it lies."""

    manifest: Manifest
    tensors: dict[str, Tensor]
    path: Path

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of what it is (manifest and tensors); two folders of the same content are one artifact."""
        return hashlib.sha256(canonical_json(self.manifest.model_dump(mode="json")).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes on disk, all files."""
        return sum(file.stat().st_size for file in self.path.iterdir() if file.is_file())


def save(
    folder: Path,
    manifest: Manifest,
    tensors: Mapping[str, Tensor],
    card: str,
    adapter_config: Mapping[str, Any] | None = None,
) -> None:
    """Write an artifact atomically; an earlier artifact of that name is replaced, anything else is left alone.

    Args:
        tensors: stored as fp32 under sorted names.
        adapter_config: PEFT's, where plain PEFT can load the artifact.

    Raises:
        ArtifactError: NaN or Inf in a tensor; the folder holds something that is not an artifact.
        SoftpromptError: the disk is full or read-only.
    """
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ArtifactError(f"{folder}: tensor {name!r} holds NaN or Inf; nothing was saved")
    if folder.exists():
        strangers = (
            [item.name for item in folder.iterdir() if item.name not in _OURS] if folder.is_dir() else [folder.name]
        )
        if strangers:
            raise ArtifactError(
                f"{folder}: holds {strangers[0]!r}, which is no part of an artifact; choose another folder"
            )
    with atomic_folder(folder) as temporary:
        if tensors:
            stored = {name: tensors[name].detach().float().cpu().contiguous() for name in sorted(tensors)}
            save_file(stored, temporary / TENSORS, metadata={"format": "pt"})
            manifest = manifest.model_copy(update={"tensors_sha256": sha256_file(temporary / TENSORS)})
        write_json(temporary / MANIFEST, manifest.model_dump(mode="json", exclude_none=True))
        if adapter_config is not None:
            write_json(temporary / CONFIG, dict(sorted(adapter_config.items())))
        (temporary / CARD).write_text(card, encoding="utf-8")


def load(folder: str | Path) -> Artifact:
    """Read an artifact, or the artifact of a run's folder.

    Nothing is unpickled, imported or fetched.

    Raises:
        ArtifactError: not an artifact, newer format, or tensors that do not match the manifest (both values shown).
    """
    path = Path(folder)
    if (path / "artifact" / MANIFEST).is_file() and not (path / MANIFEST).is_file():
        path = path / "artifact"
    if not path.is_dir():
        raise ArtifactError(
            f"{path}: no such folder" if not path.exists() else f"{path}: is a file, not an artifact's folder"
        )
    if not (path / MANIFEST).is_file():
        if (path / CONFIG).is_file():
            raise ArtifactError(
                f"{path}: has no {MANIFEST}; it looks like a PEFT folder: bring it in with "
                f"`softprompt import {path} --task TASK --out DIR`"
            )
        raise ArtifactError(f"{path}: has no {MANIFEST}; not an artifact")
    manifest = Manifest.read(path / MANIFEST)
    if not manifest.tensors:
        return Artifact(manifest, {}, path)
    tensors = read_tensors(path)
    found = sha256_file(path / TENSORS)
    if manifest.tensors_sha256 != found:
        raise ArtifactError(
            f"{path}: {TENSORS} has sha256 {found[:16]}…, the manifest says {str(manifest.tensors_sha256)[:16]}…; "
            "the file was damaged or changed"
        )
    check_tensors(path, manifest, tensors)
    return Artifact(manifest, tensors, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The folder's safetensors file.

    Raises:
        ArtifactError: missing, damaged, a pickle, or a link that leads out of the folder.
    """
    file = path / TENSORS
    if not file.is_file():
        pickle = next((name for name in _PICKLES if (path / name).exists()), None)
        if pickle:
            raise ArtifactError(f"{path}: {pickle} is a pickle, which can run code; save it as safetensors")
        raise ArtifactError(f"{path}: {TENSORS} is missing")
    if file.resolve().parent != path.resolve():
        raise ArtifactError(f"{file}: is a link to {file.resolve()}, outside the artifact")
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{file}: is damaged ({str(error).splitlines()[0]})") from None


def check_tensors(path: Path, manifest: Manifest, tensors: Mapping[str, Tensor]) -> None:
    """Names, shapes, types and finiteness against the manifest.

    Raises:
        ArtifactError: the first thing that differs, with both values.
    """
    missing, extra = sorted(set(manifest.tensors) - set(tensors)), sorted(set(tensors) - set(manifest.tensors))
    if missing or extra:
        what = (
            f"lacks tensor {missing[0]!r}"
            if missing
            else f"holds a tensor {extra[0]!r} that the manifest does not name"
        )
        raise ArtifactError(f"{path}: {what}")
    for name, record in manifest.tensors.items():
        value = tensors[name]
        if list(value.shape) != record.shape or value.dtype != torch.float32:
            kind = str(value.dtype).removeprefix("torch.")
            raise ArtifactError(
                f"{path}: tensor {name!r} is {kind} {list(value.shape)}, the manifest says {record.dtype} {record.shape}"
            )
        if not torch.isfinite(value).all():
            raise ArtifactError(f"{path}: tensor {name!r} holds NaN or Inf")


def check_base(manifest: Manifest, digest: str, tokenizer_digest: str, name: str) -> None:
    """Refuse an artifact of another base or tokenizer.

    Raises:
        ArtifactError: with both ids and digests.
    """
    base = manifest.base
    if base.digest != digest:
        raise ArtifactError(
            f"the artifact belongs to base {base.id!r} ({base.digest[:12]}), this is {name!r} ({digest[:12]}); "
            f"load it on {base.id!r} or train one for {name!r}"
        )
    if base.tokenizer_digest != tokenizer_digest:
        raise ArtifactError(
            f"the artifact was made with tokenizer {base.tokenizer_digest[:12]} of {base.id!r}, this one is "
            f"{tokenizer_digest[:12]}; use the tokenizer that came with the base"
        )
