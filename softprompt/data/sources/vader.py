"""Sentiment of sentences, from the human ratings of Hutto & Gilbert (2014)."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..source import Source, member, release


def parse(package: Path, name: str) -> Iterator[dict[str, Any]]:
    """Rows of a ground-truth file of Hutto & Gilbert (2014): tab-separated id, mean human score −4..4, text.

    The label is the score's sign; texts with |score| < 0.5, on which people do not agree, are left out.
    """
    with tarfile.open(package) as outer:
        archive = member(outer, "additional_resources/hutto_ICWSM_2014.tar.gz").read()
    with tarfile.open(fileobj=io.BytesIO(archive)) as inner:
        text = member(inner, f"hutto_ICWSM_2014/{name}").read().decode("utf-8", errors="replace")
    for line in text.split("\n"):  # not splitlines(): a text may hold other line separators
        parts = line.rstrip("\r").split("\t", 2)
        if len(parts) < 3 or not parts[2].strip():
            continue
        score = float(parts[1])
        if abs(score) >= 0.5:
            label = "positive" if score > 0 else "negative"
            yield {"id": parts[0].strip(), "text": parts[2].strip(), "label": label, "score": round(score, 4)}


def _vader(name: str, title: str, rows: int, file: str, jsonl_sha256: str) -> Source:
    return Source(
        name=name,
        title=title,
        rows=rows,
        labels=("positive", "negative"),
        language="English",
        licence="MIT",
        citation="Hutto & Gilbert 2014, ICWSM",
        fetch=release(
            "vaderSentiment",
            "vaderSentiment-3.3.2.tar.gz",
            "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        ),
        parse=partial(parse, name=file),
        jsonl_sha256=jsonl_sha256,
    )


SOURCES = (
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
