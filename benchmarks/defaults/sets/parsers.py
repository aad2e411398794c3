"""Texts and labels of each set as its repository has them: one function a form of files."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Mapping, Sequence

from softprompt.benchmarks.defaults.sets.cleaning import LabelledText, draw_labels
from softprompt.benchmarks.defaults.sets.clones import Clone

DRAWN_INTENTS = 15
ELSEWHERE = ("banking", "credit_cards")
"""Domains of CLINC150 that are left out, as banking is a set of its own."""
SENTIMENTS = ("very negative", "negative", "neutral", "positive", "very positive")
QUESTION_TYPES = {
    "ABBR": "abbreviation",
    "ENTY": "entity",
    "DESC": "description",
    "HUM": "human",
    "LOC": "location",
    "NUM": "numeric",
}
SPEECH = ("hate speech", "offensive language", "neither")


def clinc(clone: Clone) -> list[LabelledText]:
    """CLINC150: all splits of the drawn intents; underscores become spaces."""
    domains = json.loads(clone.text("data/domains.json"))
    chosen = draw_labels((i for name, own in domains.items() if name not in ELSEWHERE for i in own), DRAWN_INTENTS)
    full = json.loads(clone.text("data/data_full.json"))
    rows = [row for split in ("train", "val", "test") for row in full[split]]
    return [(text, intent.replace("_", " ")) for text, intent in rows if intent in chosen]


def banking(clone: Clone) -> list[LabelledText]:
    """Banking77: both splits of the drawn intents; underscores become spaces."""
    files = [clone.text(f"banking_data/{split}.csv") for split in ("train", "test")]
    rows = [row for file in files for row in csv.DictReader(io.StringIO(file))]
    chosen = draw_labels({row["category"] for row in rows}, DRAWN_INTENTS)
    return [(row["text"], row["category"].replace("_", " ")) for row in rows if row["category"] in chosen]


def tweeteval(clone: Clone, task: str, splits: Sequence[str]) -> list[LabelledText]:
    """A task of TweetEval: texts and labels stand in two files, line by line; HTML entities are resolved."""
    folder = f"datasets/{task}"
    names = dict(line.split("\t") for line in _lines(clone.text(f"{folder}/mapping.txt")))
    rows: list[LabelledText] = []
    for split in splits:
        texts = clone.text(f"{folder}/{split}_text.txt").removesuffix("\n").split("\n")
        labels = clone.text(f"{folder}/{split}_labels.txt").removesuffix("\n").split("\n")
        rows += [(html.unescape(text), names[label]) for text, label in zip(texts, labels, strict=True)]
    return rows


def sms(clone: Clone) -> list[LabelledText]:
    """SMS Spam Collection: label, tab, text."""
    pairs = (line.split("\t", 1) for line in clone.text("data/sms.tsv").splitlines() if "\t" in line)
    return [(text, label) for label, text in pairs]


def tnews(clone: Clone) -> list[LabelledText]:
    """TNEWS: JSON lines; labels lose their prefix `news_`."""
    rows = map(json.loads, _lines(clone.text("tnews_public/dev.json")))
    return [(row["sentence"], row["label_desc"].removeprefix("news_")) for row in rows]


def ag_news(clone: Clone) -> list[LabelledText]:
    """AG News: title and description; HTML entities are resolved, backslashes (for line ends) become spaces."""
    names = [name.strip() for name in _lines(clone.text("data/ag_news_csv/classes.txt"))]
    rows = csv.reader(io.StringIO(clone.text("data/ag_news_csv/test.csv")))
    return [
        (html.unescape(f"{title} {description}").replace("\\", " "), names[int(number) - 1])
        for number, title, description in rows
    ]


def trec(clone: Clone) -> list[LabelledText]:
    """TREC questions by their coarse type, as Li and Roth name it."""
    files = [clone.text(f"data/raw/TREC.{split}", "latin-1") for split in ("train", "test")]
    pairs = (line.split(" ", 1) for file in files for line in _lines(file))
    return [(text, QUESTION_TYPES[tag.partition(":")[0]]) for tag, text in pairs]


def one_file_a_label(clone: Clone, files: Mapping[str, str]) -> list[LabelledText]:
    """A text a line; `files` is path → label."""
    return [(line, label) for path, label in files.items() for line in clone.text(path, "latin-1").split("\n")]


def sst5(clone: Clone) -> list[LabelledText]:
    """Sentences of the Stanford Sentiment Treebank; escapes before / and * are resolved."""
    files = [clone.text(f"data/stsa.fine.{split}") for split in ("train", "dev", "test")]
    pairs = (line.split(" ", 1) for file in files for line in _lines(file))
    return [(re.sub(r"\\([/*])", r"\1", text), SENTIMENTS[int(number)]) for number, text in pairs]


def hate_speech(clone: Clone) -> list[LabelledText]:
    """Tweets by the majority of their annotators; HTML entities are resolved."""
    rows = csv.DictReader(io.StringIO(clone.text("data/labeled_data.csv")))
    return [(html.unescape(row["tweet"]), SPEECH[int(row["class"])]) for row in rows]


def thucnews(clone: Clone) -> list[LabelledText]:
    """THUCNews: headline, tab, number of the label."""
    names = clone.text("THUCNews/data/class.txt").split()
    files = [clone.text(f"THUCNews/data/{split}.txt") for split in ("dev", "test")]
    pairs = (line.rsplit("\t", 1) for file in files for line in _lines(file))
    return [(text, names[int(number)]) for text, number in pairs]


def snips(clone: Clone) -> list[LabelledText]:
    """SNIPS: texts and labels stand in two files, line by line; AddToPlaylist becomes add to playlist."""
    rows: list[LabelledText] = []
    for split in ("train", "valid", "test"):
        texts, labels = (clone.text(f"data/snips/{split}/{name}").splitlines() for name in ("seq.in", "label"))
        for text, label in zip(texts, labels, strict=True):
            rows.append((text, re.sub(r"(?<!^)(?=[A-Z])", " ", label.strip()).lower()))
    return rows


def _lines(text: str) -> list[str]:
    """Lines that are not blank."""
    return [line for line in text.splitlines() if line.strip()]
