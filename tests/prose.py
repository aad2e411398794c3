"""How long the sentences of a Markdown page are. From the command line: python tests/prose.py [PAGE …]"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAX_WORDS, MAX_MEAN, MAX_LINES = 35, 20.0, 300

ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|et al|cf|vs|etc|ca|approx)\.")
# A stop, marks that close with it, then white space and what a sentence can begin with: no small letter.
SENTENCE_END = re.compile(r"(?<=[.!?])[\"”’)\]*]*\s+(?=[^\sa-z])")
WORD = re.compile(r"\S*\w\S*")


@dataclass(frozen=True)
class Sentence:
    line: int  # where it begins, from 1
    text: str

    @property
    def words(self) -> int:
        return len(WORD.findall(self.text))


@dataclass(frozen=True)
class Page:
    name: str
    lines: int
    sentences: list[Sentence]

    @property
    def mean(self) -> float:
        return sum(sentence.words for sentence in self.sentences) / max(1, len(self.sentences))

    def faults(self) -> list[str]:
        """One line for each limit that the page breaks; long sentences with `file:line`."""
        faults = [
            f"{self.name}:{sentence.line}: {sentence.words} words (limit {MAX_WORDS}): {sentence.text}"
            for sentence in self.sentences
            if sentence.words > MAX_WORDS
        ]
        if self.mean > MAX_MEAN:
            faults.append(f"{self.name}: {self.mean:.1f} words a sentence on average (limit {MAX_MEAN:.0f})")
        if self.lines > MAX_LINES:
            faults.append(f"{self.name}: {self.lines} lines (limit {MAX_LINES}); split the page")
        return faults


def read(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    return Page(path.resolve().relative_to(ROOT).as_posix(), len(text.splitlines()), sentences(text))


def sentences(markdown: str) -> list[Sentence]:
    """The sentences of paragraphs and list items, without code blocks, tables, headings, comments and link targets."""
    return [sentence for block in _prose(markdown) for sentence in _split(block)]


def _prose(markdown: str) -> Iterator[Token]:
    enclosing: list[str] = []
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.nesting > 0:
            enclosing.append(token.tag)
        elif token.nesting < 0:
            enclosing.pop()
        elif token.type == "inline" and enclosing[-1] == "p":
            yield token


def _split(block: Token) -> Iterator[Sentence]:
    text = ""  # with the line breaks of the file, by which lines are counted
    for child in block.children or []:
        if child.type in ("softbreak", "hardbreak"):
            text += "\n"
        elif child.type == "code_inline":  # a name or a command is read as one word
            text += re.sub(r"\s+", "_", f"`{child.content}`")
        elif child.type == "text":
            text += ABBREVIATIONS.sub(r"\1", child.content)
    starts = [0, *(end.end() for end in SENTENCE_END.finditer(text)), len(text)]
    for start, stop in itertools.pairwise(starts):
        if WORD.search(text[start:stop]):
            line = 1 + (block.map or [0])[0] + text[:start].count("\n")
            yield Sentence(line, " ".join(text[start:stop].split()))


if __name__ == "__main__":
    for page in map(read, map(Path, sys.argv[1:]) if sys.argv[1:] else PAGES):
        longest = max((sentence.words for sentence in page.sentences), default=0)
        title = f"{page.name}: {page.lines} lines, mean {page.mean:.1f} words, longest {longest}"
        print(title, *page.faults(), sep="\n  ")
