"""Artifacts on the Hugging Face hub: `hub:OWNER/NAME[@REVISION][@sha256:DIGEST]` stands wherever a folder does.

Only files that an artifact may have are downloaded, after a look at their sizes. They come into the hub's own cache, so they
are there offline. What is loaded is a folder of plain files in our cache, because the hub's is made of links.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..errors import ArtifactError
from ..storage import atomic_folder, cache_dir
from ..version import __version__
from .files import MAX_FILE_BYTES, one_line
from .hub_errors import plain_hub_errors, why_unreachable

MARK = "hub:"
_TENSORS = ("adapter_model.safetensors", "model.safetensors")
PATTERNS = (
    *_TENSORS,
    *(f"members/*/{name}" for name in _TENSORS),
    "*README.md",
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
)
"""Files that an artifact, an ensemble or a PEFT folder may have (`*` also matches `/`): data, no pickle and no code."""
MAX_BYTES = 8_000_000_000  # of all files; the weights of a model of 2B parameters
MAX_FILES = 500  # 16 members that are whole models with tokenizers
_TIMEOUT = 30.0  # seconds for an answer of the hub
_ADDRESS = re.compile(
    r"hub:(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*)(@(?!sha256:|/|\S*\.\.)(?P<revision>[^@\s]+))?(@sha256:(?P<digest>[0-9a-f]{64}))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Address:
    """An artifact on the hub.

    Attributes:
        repo: OWNER/NAME.
        revision: branch, tag or commit; None: the main branch.
        digest: that the artifact must have (`Artifact.digest`); None: any.
    """

    repo: str
    revision: str | None = None
    digest: str | None = None

    @staticmethod
    def parse(text: str) -> Address:
        """Read an address.

        Raises:
            ArtifactError: it is none.
        """
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise ArtifactError(
                f"{one_line(text, 200)}: is no address of an artifact; expected hub:OWNER/NAME, hub:OWNER/NAME@REVISION or "
                "hub:OWNER/NAME@REVISION@sha256:DIGEST with a digest of 64 hex digits"
            )
        return Address(found["repo"], found["revision"], found["digest"])

    @property
    def owner(self) -> str:
        """The account that it belongs to."""
        return self.repo.partition("/")[0]

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{MARK}{self.repo}{revision}{f'@sha256:{self.digest}' if self.digest else ''}"


def is_hub(source: object) -> bool:
    """Whether a source is an address on the hub; a folder of such a name is given by its whole path."""
    return isinstance(source, (str, Path)) and str(source).startswith(MARK)


def fetched(source: str | Path) -> tuple[Path, str | None]:
    """The folder of a source, downloaded if it is on the hub, and the digest that it must have.

    Raises:
        ArtifactError: it is not on the hub, not reachable, or larger than artifacts are.
    """
    if not is_hub(source):
        return Path(source), None
    address = Address.parse(Path(source).as_posix() if isinstance(source, Path) else source)
    return _plain_folder(address, _snapshot(address)), address.digest


def check_digest(source: str | Path, wanted: str | None, found: str) -> None:
    """Refuse an artifact with another digest than its address names.

    Raises:
        ArtifactError: with both digests.
    """
    if wanted is not None and wanted != found:
        where = str(source).partition("@sha256:")[0]
        raise ArtifactError(
            f"{where}: has digest {found}, its address says {wanted}; it is another artifact than the one that was pinned"
        )


def _snapshot(address: Address) -> Path:
    """The snapshot in the hub's cache. Where the hub is out of reach, it is the last one that was downloaded.

    Raises:
        ArtifactError: see `fetched`.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):  # type: ignore[misc]  # it has no types
        """The hub's own progress bar, on a terminal only."""

        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **{**settings, "disable": settings.get("disable") or not sys.stderr.isatty()})

    name, revision = address.repo, address.revision
    with plain_hub_errors(str(address)):
        try:
            api = HfApi(library_name="softprompt", library_version=__version__)
            info = api.model_info(name, revision=revision, files_metadata=True, timeout=_TIMEOUT)
        except Exception as error:
            why = why_unreachable(error)
            if why is None:
                raise
            kept = snapshot_download(name, revision=revision, allow_patterns=list(PATTERNS), local_files_only=True)
            if why:
                commit = Path(kept).name[:12]
                warnings.warn(
                    f"{address}: the hub cannot be reached ({why}), so commit {commit} of the cache is used",
                    stacklevel=2,
                )
            return Path(kept)
        _check_sizes(str(address), info.siblings or [])
        found = Path(snapshot_download(name, revision=revision, allow_patterns=list(PATTERNS), tqdm_class=Bar))
    if found.name != info.sha:
        raise ArtifactError(f"{address}: was changed while it was downloaded; try again")
    return found


def _check_sizes(where: str, files: Sequence[Any]) -> None:
    """
    Raises:
        ArtifactError: more, or more bytes, than an artifact has.
    """
    wanted = [file for file in files if _is_ours(file.rfilename)]
    instead = "if you trust it, download it with `hf download` and give its folder"
    if not wanted:
        raise ArtifactError(f"{where}: holds no file of an artifact (such as manifest.json); check the name")
    if len(wanted) > MAX_FILES:
        raise ArtifactError(f"{where}: holds {len(wanted)} files, expected at most {MAX_FILES}; {instead}")
    for file in wanted:
        limit = MAX_BYTES if file.rfilename.endswith(_TENSORS) else MAX_FILE_BYTES
        if file.size is None or file.size > limit:
            size = "an unknown number of" if file.size is None else f"{file.size:,}"
            raise ArtifactError(
                f"{where}: {one_line(file.rfilename, 80)} has {size} bytes, expected at most {limit:,}; {instead}"
            )
    if (total := sum(file.size for file in wanted)) > MAX_BYTES:
        raise ArtifactError(f"{where}: has {total:,} bytes in all, expected at most {MAX_BYTES:,}; {instead}")


def _is_ours(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in PATTERNS)


def _plain_folder(address: Address, snapshot: Path) -> Path:
    """The files of a snapshot, as a folder without links that is called like the repository."""
    folder = cache_dir() / "hub" / address.owner / snapshot.name / address.repo.partition("/")[2]
    files = {file.relative_to(snapshot).as_posix(): file for file in snapshot.rglob("*") if file.is_file()}
    files = {name: file for name, file in files.items() if _is_ours(name)}
    if {name: file.stat().st_size for name, file in files.items()} == _sizes(folder):
        return folder
    with atomic_folder(folder) as temporary:
        for name, file in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            _link(Path(os.path.realpath(file)), temporary / name)
    return folder


def _sizes(folder: Path) -> dict[str, int]:
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in folder.rglob("*") if file.is_file()}


def _link(file: Path, to: Path) -> None:
    """The same bytes under another name; a copy where the file system cannot do that, or the file is somebody else's.

    A cache may be shared, and whoever writes a folder sets the mode of its files.
    """
    try:
        if hasattr(os, "geteuid") and file.stat().st_uid != os.geteuid():
            raise PermissionError
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)
