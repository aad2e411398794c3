"""United States addresses, tagged word by word in the training data of `usaddress`; and questions about their parts."""

from __future__ import annotations

import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from ..source import Source, member, release

QUESTIONS = {
    "AddressNumber": "What is the house number?",
    "StreetName": "What is the name of the street?",
    "StreetNamePostType": "What type of street is it?",
    "StreetNamePreDirectional": "What is the direction before the street name?",
    "OccupancyIdentifier": "What is the number of the apartment, suite or unit?",
    "PlaceName": "What is the city?",
    "StateName": "What is the state?",
    "ZipCode": "What is the ZIP code?",
    "Recipient": "Who is the recipient?",
    "LandmarkName": "What is the landmark?",
    "BuildingName": "What is the name of the building?",
    "USPSBoxID": "What is the number of the box?",
}
_DANGLING = " ,;()"


def tagged(package: Path) -> Iterator[list[tuple[str, str]]]:
    """Each address as its words with their tags: (tag, word)."""
    with tarfile.open(package) as archive:
        root = ElementTree.fromstring(member(archive, "training/labeled.xml").read())
    for address in root.iter("AddressString"):
        yield [(token.tag, (token.text or "").strip()) for token in address]


def tags(package: Path) -> Iterator[dict[str, Any]]:
    """One row for each address; neighbouring words of one tag are one part of it."""
    for number, tokens in enumerate(tagged(package)):
        yield {"address": str(number), "tokens": [word for _, word in tokens], "tags": [tag for tag, _ in tokens]}


def parse(package: Path) -> Iterator[dict[str, Any]]:
    """One row for each part of an address that a question is asked about and that stands there once, in one stretch."""
    for number, tokens in enumerate(tagged(package)):
        context, begins = "", []
        for _, text in tokens:
            context += " " if context else ""
            begins.append(len(context))
            context += text
        stretches: dict[str, list[tuple[int, str]]] = {}
        for tag, part in groupby(range(len(tokens)), key=lambda place: tokens[place][0]):
            places = list(part)
            end = begins[places[-1]] + len(tokens[places[-1]][1])
            text = context[begins[places[0]] : end]
            start = begins[places[0]] + len(text) - len(text.lstrip(_DANGLING))
            stretches.setdefault(tag, []).append((start, text.strip(_DANGLING)))
        for tag, question in QUESTIONS.items():
            if len(found := stretches.get(tag, [])) == 1 and found[0][1]:
                start, text = found[0]
                assert context[start : start + len(text)] == text
                yield {
                    "id": f"{number}-{tag}",
                    "address": str(number),
                    "question": question,
                    "context": context,
                    "answers": {"text": [text], "answer_start": [start]},
                }


_RELEASE = release(
    "usaddress",
    "usaddress-0.5.16.tar.gz",
    "f7e614e2489c159cf85be1b6f86edbfaf329dbeedef4d002a025757afd1ec6c6",
)

SOURCES = (
    Source(
        name="addresses",
        title="questions about the parts of United States addresses",
        rows=7593,
        language="English",
        licence="MIT",
        citation="usaddress 0.5.16 (DataMade)",
        fetch=_RELEASE,
        parse=parse,
        jsonl_sha256="3fb3ee9f272011a2d92acbcd8bb2363a7a7a7d18847f58dcc6a027a6fa9f8fca",
        task="span",
        fields=("id", "address", "question", "context", "answers"),
    ),
    Source(
        name="address-tags",
        title="parts of United States addresses, a tag for each word",
        rows=1513,
        language="English",
        licence="MIT",
        citation="usaddress 0.5.16 (DataMade)",
        fetch=_RELEASE,
        parse=tags,
        jsonl_sha256="d6cee605e20897df3d056274fdd7777523900cbae8438584c385158b6e020884",
        task="tagging",
        fields=("address", "tokens", "tags"),
    ),
)
