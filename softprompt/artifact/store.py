"""Save and load artifacts: a folder of data, whole or not there, checked before it is believed.

adapter_model.safetensors   the learned tensors, fp32, in PEFT's names where PEFT can load them
adapter_config.json         only where plain PEFT can load the folder
model.safetensors, …        instead of these where all weights were trained: with config.json and tokenizer a plain model folder
manifest.json               see `manifest.py`
README.md                   model card
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as dump_safetensors
from torch import Tensor

from ..errors import ArtifactError
from ..storage import atomic_folder, check_writable, digest_of
from .checks import (
    check_counts,
    check_layout,
    check_size,
    check_tensors,
    list_names,
    list_shapes,
    numbers,
    quote,
    whole_model,
)
from .files import (
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    MAX_JSON_BYTES,
    WHOLE_MODEL,
    check_finite,
    one_line,
    parse_tensors,
    read_bytes,
    read_json,
    steadily,
)
from .hub import check_digest, fetched
from .manifest import Manifest, TensorRecord

TENSORS, CONFIG, MANIFEST, CARD = "adapter_model.safetensors", "adapter_config.json", "manifest.json", "README.md"
FILES = (TENSORS, CONFIG, MANIFEST, CARD)
ENSEMBLE, MEMBERS = "ensemble.json", "members"
_PICKLES = ("adapter_model.bin", "pytorch_model.bin", "adapter_model.pt", "adapter_model.pth")


@dataclass(frozen=True)
class Artifact:
    """A loaded artifact.

    Attributes:
        tensors: fp32 on the CPU, exactly those that the manifest names.
        path: its folder; None if it was never saved.
    """

    manifest: Manifest
    tensors: dict[str, Tensor]
    path: Path | None

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of manifest and, through its `tensors_sha256`, tensors: equal content is one artifact."""
        return digest_of(self.manifest.as_dict())

    @property
    def files(self) -> list[str]:
        """Names of its own files, whatever else lies in its folder; none if it was never saved."""
        names = {*FILES, self.manifest.tensors_file, *self.manifest.files}
        return sorted(name for name in names if self.path is not None and os.path.lexists(self.path / name))

    @property
    def size(self) -> int:
        """Bytes on disk of the artifact's own files; 0 if it was never saved."""
        files = [self.path / name for name in self.files] if self.path is not None else []
        return sum(file.stat().st_size for file in files if file.is_file())


def save(
    folder: str | Path,
    manifest: Manifest,
    tensors: Mapping[str, Tensor],
    readme: str,
    adapter_config: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Artifact:
    """Write an artifact; equal arguments give equal bytes.

    An earlier artifact in `folder` is replaced in one step; whatever goes wrong, it stays as it was.

    Args:
        manifest: `tensors` may be empty (then it is filled in); `tensors_sha256` is filled in.
        tensors: any float dtype and device; stored as fp32 under sorted names.
        adapter_config: PEFT's, where plain PEFT can load these tensors.
        files: what makes the folder a plain transformers model (`config.json`, tokenizer), where the tensors are all weights.

    Returns:
        What was written, as `load` would give it.

    Raises:
        ArtifactError: NaN or infinity, tensors that are not those of the manifest, the folder holds something else.
        SoftpromptError: it cannot be written (full disk, permissions).
    """
    target = Path(os.path.realpath(folder))  # a link goes on pointing to the folder that we replace
    refuse_foreign(target, str(folder))
    stored = {name: _plain(name, tensors[name]) for name in sorted(tensors)}
    check_finite(stored, str(folder))
    found = {name: TensorRecord(shape=list(value.shape)) for name, value in stored.items()}
    if manifest.tensors and manifest.tensors != found:
        raise ArtifactError(
            f"{folder}: the manifest names {list_shapes(manifest.tensors)}, the tensors are {list_shapes(found)}"
        )
    data = dump_safetensors(stored, metadata={"format": "pt"}) if stored else b""
    sha256 = hashlib.sha256(data).hexdigest() if stored else None
    beside = {name: bytes(content) for name, content in (files or {}).items()}
    if adapter_config is not None:
        beside[CONFIG] = _json(adapter_config, folder)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(beside.items())}
    tensors_file = "model.safetensors" if "config.json" in beside else TENSORS
    filled = {"tensors": found, "tensors_sha256": sha256, "tensors_file": tensors_file, "files": digests}
    written = _manifest_bytes(manifest.model_copy(update=filled), folder)
    # What we could not read back must not be written either
    manifest = Manifest.from_json(written.decode(), f"{folder}/{MANIFEST}")
    check_layout(manifest, str(folder))
    check_counts(manifest, str(folder))
    whole = {**beside, MANIFEST: written, CARD: readme.encode(), **({tensors_file: data} if stored else {})}
    with atomic_folder(target) as temporary:
        for name in sorted(whole):
            (temporary / name).write_bytes(whole[name])
    return Artifact(manifest, stored, target)


def load(folder: str | Path, check: Callable[[Manifest], object] | None = None) -> Artifact:
    """Read and check an artifact. Nothing in it is run, unpickled, followed or fetched.

    Args:
        folder: the artifact, or the folder of the run that made it (which holds it as `artifact/`); or `hub:OWNER/NAME`,
            which is downloaded (see `hub.py`).
        check: called with the manifest before the tensors are read, to refuse it.

    Raises:
        ArtifactError: the artifact cannot be read or was changed; one line says what differs.
    """
    source, wanted = fetched(folder)
    path = _locate(source)
    found = steadily(path, lambda: _load(path, check))
    check_digest(folder, wanted, found.digest)
    return found


def _locate(path: Path) -> Path:
    try:
        what = None if path.is_dir() else "is a file" if path.exists() else "no such folder"
    except OSError as error:  # a name that is too long
        what = f"cannot be read ({error.strerror})"
    if what:
        packed = ", unpacked" if path.suffix in (".zip", ".tar", ".gz", ".tgz") else ""
        raise ArtifactError(f"{one_line(str(path), 300)}: {what}; expected an artifact's folder{packed}")
    if os.path.lexists(path / MANIFEST):
        return path
    if os.path.lexists(path / "artifact" / MANIFEST):
        return path / "artifact"
    if os.path.lexists(path / ENSEMBLE):
        raise ArtifactError(
            f"{path}: is an ensemble of artifacts, which are in {path / MEMBERS}; name one of them here"
        )
    if (path / CONFIG).is_file():
        raise ArtifactError(
            f"{path}: has {CONFIG} but no {MANIFEST}, so it looks like a PEFT folder; "
            "bring it in with `softprompt import`"
        )
    if (path / "run.yaml").is_file():
        raise ArtifactError(f"{path}: is a run that has not ended; the same `softprompt train` command goes on with it")
    inside = sorted(file.parent.name for file in path.glob(f"*/{MANIFEST}"))
    hint = f"; name one in it: {list_names(inside)}" if inside else ""
    raise ArtifactError(f"{path}: has no {MANIFEST}; expected an artifact's folder{hint}")


def _load(path: Path, check: Callable[[Manifest], object] | None) -> Artifact:
    manifest = Manifest.read(path / MANIFEST)
    check_layout(manifest, str(path / MANIFEST))
    check_counts(manifest, str(path / MANIFEST))
    if check is not None:
        check(manifest)
    file = path / manifest.tensors_file
    _check_files(path, manifest)
    if not manifest.tensors:
        if manifest.tensors_sha256 is not None or os.path.lexists(file):
            raise ArtifactError(f"{path}: {MANIFEST} names no tensors, but there are some; the artifact was changed")
        return Artifact(manifest, {}, path)
    if not os.path.lexists(file):
        for name in _PICKLES:
            if os.path.lexists(path / name):
                raise ArtifactError(
                    f"{path}: {name} is a pickle, which can run code and is never opened; save it as safetensors"
                )
    limit = MAX_HEADER_BYTES * (WHOLE_MODEL if whole_model(manifest) else 1)
    check_size(file, manifest, limit)
    data = read_bytes(path, manifest.tensors_file, limit + 4 * numbers(manifest), limit)
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != manifest.tensors_sha256:
        raise ArtifactError(
            f"{file}: sha256 is {sha256[:16]}…, {MANIFEST} says {str(manifest.tensors_sha256)[:16]}…; "
            "the file was changed or is cut short, copy the artifact again"
        )
    tensors = parse_tensors(data, str(file), limit)
    check_tensors(tensors, manifest, str(file))
    check_finite(tensors, str(file))
    return Artifact(manifest, tensors, path)


def _check_files(path: Path, manifest: Manifest) -> None:
    """What lies beside the tensors for PEFT or transformers must be what was written: others will believe it."""
    for name, want in manifest.files.items():
        if name in (MANIFEST, CARD, manifest.tensors_file):
            raise ArtifactError(f"{path}: {MANIFEST} lists {quote(name)} among other files; it was changed")
        found = hashlib.sha256(read_bytes(path, name, MAX_FILE_BYTES)).hexdigest()
        if found != want:
            raise ArtifactError(
                f"{path / name}: sha256 is {found[:16]}…, {MANIFEST} says {want[:16]}…; the file was changed, copy the "
                "artifact again"
            )


def check_place(folder: Path) -> None:
    """Refuse a folder for an artifact before the work is done.

    Raises:
        ArtifactError: it holds something else.
        SoftpromptError: nothing can be written there.
    """
    target = Path(os.path.realpath(folder))
    refuse_foreign(target, str(folder))
    check_writable(target.with_name(f".{target.name}.tmp"))


def refuse_foreign(target: Path, where: str) -> None:
    """Only an empty place or an artifact of ours may be replaced: anything else is somebody's work."""
    try:
        names = sorted(os.listdir(target))  # noqa: PTH208 - names are all we need
    except FileNotFoundError:
        return
    except OSError as error:
        raise ArtifactError(f"{where}: cannot be written ({error.strerror or error}); choose another folder") from None
    if not names:
        return
    try:
        data = read_json(target, MANIFEST)
    except ArtifactError:
        data = {}
    listed = data.get("files")
    ours = {*FILES, "model.safetensors", *(listed if isinstance(listed, dict) else {})}
    if foreign := [name for name in names if name not in ours]:
        raise ArtifactError(
            f"{where}: holds {list_names(foreign)}, which is no part of an artifact; choose another folder"
        )
    if not ("format_version" in data and "softprompt" in data):
        raise ArtifactError(f"{where}: is neither empty nor an artifact of ours; choose another folder")


def _plain(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        raise ArtifactError(f"tensor {quote(name)} is {value.dtype}, expected floating-point numbers")
    # A copy of its own: safetensors refuses tensors that share memory, and the caller may go on training
    return value.detach().to("cpu", torch.float32, copy=True).contiguous()


def _json(value: Mapping[str, Any], folder: str | Path) -> bytes:
    return _bytes(lambda: json.dumps(dict(value), indent=2, sort_keys=True, allow_nan=False) + "\n", folder)


def _manifest_bytes(manifest: Manifest, folder: str | Path) -> bytes:
    data = _bytes(manifest.to_json, folder)
    limit = MAX_JSON_BYTES * (WHOLE_MODEL if whole_model(manifest) else 1)
    if len(data) > limit:
        raise ArtifactError(f"{folder}: the manifest has {len(data):,} bytes, expected ≤ {limit:,}")
    return data


def _bytes(make: Callable[[], str], folder: str | Path) -> bytes:
    try:
        return make().encode()
    except (TypeError, ValueError) as error:  # a lone surrogate among them
        raise ArtifactError(f"{folder}: cannot be written as JSON ({one_line(str(error), 200)})") from None
