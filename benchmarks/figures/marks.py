"""Marked figures of a page: read, compared with their records, written anew; and figures that have no mark."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# A mark without an end does not reach into the next one.
_MARK = re.compile(r"<!-- figure (?P<key>\S+) -->(?P<text>(?:(?!<!-- figure ).)*?)<!-- end -->", re.DOTALL)
_OPEN = re.compile(r"<!-- figure ")
# What is no claim: code, comments, targets of links, and the level of the intervals.
_ASIDE = re.compile(
    r"^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$|`[^`\n]+`|<!--.*?-->|\]\([^)\s]*\)|\b95 ?%", re.DOTALL | re.MULTILINE
)
_UNIT = (
    r"%|percent|s|ms|µs|min|h|secs?|seconds?|minutes?|hours?|days?|[KMG]i?B|points?|times|×|-fold|tok(?:ens)?/s"
    r"|\w+ (?:per|a) (?:second|minute|hour)"
)
_WITH_UNIT = rf"(?<![\w.,])\d[\d,.]*(?: ?± ?[\d.]+)?\s?(?:{_UNIT})(?!\w)"
_FRACTION = r"(?<![\w.])0?\.\d{2,}(?!\w)"
_IN_PERCENT = r"(?<![\w.])\d{2,3}\.\d+(?![\w.;])"  # 87.2; versions have one digit in front, defaults a semicolon behind
_MEASURED = re.compile(rf"{_WITH_UNIT}|{_FRACTION}|{_IN_PERCENT}")


@dataclass(frozen=True)
class Figure:
    """A marked figure.

    Attributes:
        key: of its record; see `keys`.
        text: as the page has it, without white space at its ends.
        line: of the page, from 1.
    """

    key: str
    text: str
    line: int


def figures(page: str) -> list[Figure]:
    """All marked figures of a page, in their order."""
    return [Figure(match["key"], match["text"].strip(), _line(page, match.start())) for match in _MARK.finditer(page)]


def written(page: str, value_of: Callable[[str], str]) -> str:
    """The page with each marked figure as its record has it; a table stands on lines of its own."""

    def replaced(match: re.Match[str]) -> str:
        value = value_of(match["key"])
        shown = f"\n\n{value}\n\n" if "\n" in value else value
        return f"<!-- figure {match['key']} -->{shown}<!-- end -->"

    return _MARK.sub(replaced, page)


def unmarked(page: str) -> Iterator[tuple[int, str]]:
    """(line, figure) of what looks measured and has no mark; also of a mark that has no end."""
    rest = _blank(_MARK, page)
    for match in _OPEN.finditer(rest):
        yield _line(page, match.start()), "a figure's mark without <!-- end -->"
    for match in _MEASURED.finditer(_blank(_ASIDE, rest)):
        yield _line(page, match.start()), match[0]


def _blank(pattern: re.Pattern[str], page: str) -> str:
    """The page with spaces for what matches, so that lines and places stay."""
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), page)


def _line(page: str, start: int) -> int:
    return page.count("\n", 0, start) + 1
