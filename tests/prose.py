"""How long the sentences of a Markdown page or of a Python module are.

A module's sentences are those of its docstrings and of its texts: messages, warnings, help.

    python tests/prose.py [PAGE or MODULE …]
"""

from __future__ import annotations

import ast
import itertools
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = sorted(file for folder in ("softprompt", "adapters", "benchmarks") for file in (ROOT / folder).rglob("*.py"))
MAX_WORDS, MAX_MEAN, MAX_LINES = 35, 20.0, 300
MAX_MODULE_WORDS, MAX_MODULES_MEAN = 30, 15.0  # the mean is that of all modules together

ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|et\s+al|cf|vs|etc|ca|approx)\.")
# A stop, marks that close with it, then white space and what a sentence can begin with: no small letter.
SENTENCE_END = re.compile(r"(?<=[.!?])[\"”’)\]*]*\s+(?=[^\sa-z])")
WORD = re.compile(r"\S*\w\S*")
NAMES = re.compile(r"\S*|[\w\s]*")  # a key, or a list of names
CODE = re.compile(r"``.+?``|`[^`\n]+`")
SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):\s*$")
ENTRY = re.compile(r"[\w`*\"'{][^:]{0,60}:\s")  # an argument, a key or an error, then what it is
# A list's item, a table's line, or a term with what it means in a second column.
ITEM = re.compile(r"[-*|] |\d+\. |\S.*? {2,}\S")


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
    max_words: int = MAX_WORDS
    max_mean: float = MAX_MEAN
    max_lines: int = MAX_LINES

    @property
    def mean(self) -> float:
        return mean(self.sentences)

    def faults(self) -> list[str]:
        """One line for each limit that the page breaks; long sentences with `file:line`."""
        faults = [
            f"{self.name}:{sentence.line}: {sentence.words} words (limit {self.max_words}): {sentence.text}"
            for sentence in self.sentences
            if sentence.words > self.max_words
        ]
        if self.mean > self.max_mean:
            faults.append(f"{self.name}: {self.mean:.1f} words a sentence on average (limit {self.max_mean:.0f})")
        if self.lines > self.max_lines:
            faults.append(f"{self.name}: {self.lines} lines (limit {self.max_lines}); split the page")
        return faults


def mean(sentences: list[Sentence]) -> float:
    """Words a sentence."""
    return sum(sentence.words for sentence in sentences) / max(1, len(sentences))


def read(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    name, lines = path.resolve().relative_to(ROOT).as_posix(), len(text.splitlines())
    if path.suffix == ".py":
        return Page(name, lines, module_sentences(text), MAX_MODULE_WORDS, max_mean=math.inf, max_lines=sys.maxsize)
    return Page(name, lines, sentences(text))


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
    text = ""
    for child in block.children or []:
        if child.type in ("softbreak", "hardbreak"):
            text += "\n"
        elif child.type == "code_inline":  # a name or a command is read as one word
            text += f"`{child.content}`"
        elif child.type == "text":
            text += child.content
    return _of_text(text, 1 + (block.map or [0])[0])


def module_sentences(source: str) -> list[Sentence]:
    """The sentences of a module's docstrings and of its other texts: messages, help, what is written into files."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    read: list[Sentence] = []
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):  # breadth first: a docstring or an f-string comes before its parts
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            (docstring,) = ast.iter_child_nodes(node.body[0])
            skipped.add(docstring)
            for offset, block in _blocks(ast.get_docstring(node) or ""):
                read += _of_text(block, docstring.lineno + offset)
        elif isinstance(node, ast.JoinedStr):
            skipped.update(node.values)
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
            read += [Sentence(node.lineno, sentence.text) for sentence in _of_text(text, 0)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            text = "" if NAMES.fullmatch(node.value) else node.value
            read += [Sentence(node.lineno, sentence.text) for sentence in _of_text(text, 0)]
    return sorted(read, key=lambda sentence: sentence.line)


def _blocks(docstring: str) -> Iterator[tuple[int, str]]:
    """Paragraphs, list items and entries of a section, each with its first line's number; no code, no tables."""
    block: list[str] = []
    in_section, code, after_blank = False, False, True
    for number, line in enumerate([*docstring.splitlines(), ""]):
        text, indent = line.strip(), len(line) - len(line.lstrip())
        section = bool(SECTION.match(line))
        item = bool(ITEM.match(text))
        in_section = section or (in_section and (not text or indent > 0))
        if after_blank:
            code = indent >= 4 and not in_section and not item
        entry = in_section and indent <= 4 and bool(ENTRY.match(text))
        if block and (not text or section or item or entry):
            yield number - len(block), "\n".join(block)
            block = []
        after_blank = not text
        if text and not (section or code or text.startswith("|")):
            block.append(text)


def _of_text(text: str, line: int) -> Iterator[Sentence]:
    """The sentences of one paragraph that begins at this line. A name or a command is read as one word."""
    text = CODE.sub(lambda code: re.sub(r"\s+", "_", code[0]), text)
    text = ABBREVIATIONS.sub(r"\1", text)
    starts = [0, *(end.end() for end in SENTENCE_END.finditer(text)), len(text)]
    for start, stop in itertools.pairwise(starts):
        if WORD.search(text[start:stop]):
            yield Sentence(line + text[:start].count("\n"), " ".join(text[start:stop].split()))


if __name__ == "__main__":
    for page in map(read, map(Path, sys.argv[1:]) if sys.argv[1:] else PAGES):
        longest = max((sentence.words for sentence in page.sentences), default=0)
        title = f"{page.name}: {page.lines} lines, mean {page.mean:.1f} words, longest {longest}"
        print(title, *page.faults(), sep="\n  ")
