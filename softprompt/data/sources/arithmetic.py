"""Arithmetic and algebra in words: questions of seven of the kinds of Saxton et al. (2019), made here by a seeded generator.

Their package `mathematics-dataset` holds a generator and no rows, and fetching never runs a package's code. So the questions
are made by this file, in their wordings, over smaller numbers; the digest of the rows is pinned as that of any source.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..source import Source

Draw = Callable[[int, int], int]
Problem = tuple[Any, str, str]
"""What makes a problem the same in any wording, the question, the answer."""

_EACH = 600  # rows a kind
_WORDINGS = {
    "add": (
        "What is {p} + {q}?",
        "Calculate {p} + {q}.",
        "Work out {p} + {q}.",
        "Add {p} and {q}.",
        "What is {p} plus {q}?",
    ),
    "subtract": ("What is {p} - {q}?", "Calculate {p} - {q}.", "Work out {p} - {q}.", "Subtract {q} from {p}."),
    "multiply": ("Calculate {p}*{q}.", "Work out {p} * {q}.", "Multiply {p} and {q}.", "What is {p} times {q}?"),
    "divide": ("Divide {p} by {q}.", "What is {p} divided by {q}?", "Calculate {p} divided by {q}."),
    "remainder": (
        "What is the remainder when {p} is divided by {q}?",
        "Calculate the remainder when {p} is divided by {q}.",
    ),
}


def _add(draw: Draw) -> Problem:
    p, q = draw(-99, 99), draw(-99, 99)
    return (min(p, q), max(p, q)), _worded("add", draw, p, q), str(p + q)


def _subtract(draw: Draw) -> Problem:
    p, q = draw(-99, 99), draw(-99, 99)
    return (p, q), _worded("subtract", draw, p, q), str(p - q)


def _multiply(draw: Draw) -> Problem:
    p, q = draw(-25, 25), draw(-25, 25)
    return (min(p, q), max(p, q)), _worded("multiply", draw, p, q), str(p * q)


def _divide(draw: Draw) -> Problem:
    q, answer = _not_zero(draw, 20), draw(-40, 40)
    return (q * answer, q), _worded("divide", draw, q * answer, q), str(answer)


def _remainder(draw: Draw) -> Problem:
    q = draw(2, 20)
    p = draw(q, 199)
    return (p, q), _worded("remainder", draw, p, q), str(p % q)


def _solve(draw: Draw) -> Problem:
    size, x, b, name = draw(2, 12), draw(-20, 20), _not_zero(draw, 40), "abnxyz"[draw(0, 5)]
    a, sign = size * (-1) ** draw(0, 1), "+" if b > 0 else "-"
    return (a, b, x), f"Solve {a}*{name} {sign} {abs(b)} = {a * x + b} for {name}.", str(x)


def _sort(draw: Draw) -> Problem:
    size = draw(3, 4)
    numbers: list[int] = []
    while len(numbers) < size:
        if (number := draw(-50, 50)) not in numbers:
            numbers.append(number)
    falling = bool(draw(0, 1))
    order = ("ascending", "increasing", "descending", "decreasing")[draw(0, 1) + 2 * falling]
    question = f"{('Sort', 'Put')[draw(0, 1)]} {_listed(numbers)} in {order} order."
    return (tuple(sorted(numbers)), falling), question, _listed(sorted(numbers, reverse=falling))


_KINDS: dict[str, Callable[[Draw], Problem]] = {
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "divide": _divide,
    "remainder": _remainder,
    "solve": _solve,
    "sort": _sort,
}


def rows() -> Iterator[dict[str, Any]]:
    """The kinds in turn. No problem occurs twice, in another wording or order of its operands neither."""
    generator = random.Random(0)

    def draw(low: int, high: int) -> int:
        # of Python's generator only random() is promised to stay the same in later versions
        return low + int(generator.random() * (high - low + 1))

    seen: set[Any] = set()
    for _ in range(_EACH):
        for kind, make in _KINDS.items():
            key, question, answer = make(draw)
            while (kind, key) in seen:
                key, question, answer = make(draw)
            seen.add((kind, key))
            yield {"question": question, "answer": answer, "kind": kind}


def _worded(kind: str, draw: Draw, p: int, q: int) -> str:
    wordings = _WORDINGS[kind]
    return wordings[draw(0, len(wordings) - 1)].format(p=p, q=q)


def _not_zero(draw: Draw, largest: int) -> int:
    number = draw(1, 2 * largest)
    return number if number <= largest else largest - number


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


SOURCES = (
    Source(
        name="arithmetic",
        title="questions of arithmetic and algebra, made by a seeded generator",
        rows=_EACH * len(_KINDS),
        language="English",
        licence="Apache-2.0",
        citation="kinds and wordings after Saxton et al. 2019, ICLR, arXiv:1904.01557",
        fetch=lambda progress: Path(__file__),  # what the rows are made from
        parse=lambda here: rows(),
        jsonl_sha256="1cad454cae5bf66b2c8178fdc5d7340ef9a7408976ebd409612f4e878c2b823a",
        task="generation",
        fields=("question", "answer", "kind"),
    ),
)
