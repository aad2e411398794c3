"""How a template reads a row's fields: what it prints as it is must be text; what it takes apart may be a list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import cast

from jinja2 import nodes

from .filters import OF_TEXT
from .sandbox import parse


@lru_cache(maxsize=256)
def printed(text: str) -> frozenset[str]:
    """Names that a Jinja2 text puts into its output as they are, or through a filter for texts."""
    return frozenset(_printed(parse(text)))


@lru_cache(maxsize=256)
def always_printed(text: str) -> frozenset[str]:
    """Those that it prints under no condition."""
    outputs = [node for node in parse(text).body if isinstance(node, nodes.Output)]
    return frozenset(node.name for output in outputs for node in output.nodes if isinstance(node, nodes.Name))


@lru_cache(maxsize=256)
def looped(text: str) -> dict[str, bool]:
    """Names that a Jinja2 text goes through as they are, and whether it prints what they hold."""
    loops = [loop for loop in parse(text).find_all(nodes.For) if isinstance(loop.iter, nodes.Name)]
    found: dict[str, bool] = {}
    for loop in loops:
        item = loop.target.name if isinstance(loop.target, nodes.Name) else None
        name = cast("nodes.Name", loop.iter).name
        found[name] = found.get(name, False) or item in set(_printed(loop))
    return found


_READ_NOWHERE = re.compile(r"\{\{-?\s*[^\W\d][\w.]*\s*(?:\|[^{}]*)?-?\}\}|\{%.*?%\}", re.DOTALL)
_NO_BREAK = re.compile(r"^\\[nt]|\\[nt](?![a-z])")  # `\neq` and `\times` are LaTeX

NO_BREAK_ADVICE = "a line break is written in double quotes in YAML, or as a block (|)"


def literal(text: str) -> str | None:
    """What looks like a field or a statement in a text in which none is read, or None."""
    return found[0] if (found := _READ_NOWHERE.search(text)) else None


def no_break(text: str) -> str | None:
    """A backslash and a letter where a line break or tab may be meant, or None. In YAML only double quotes make one of them."""
    return found[0] if (found := _NO_BREAK.search(text)) else None


def _printed(tree: nodes.Node) -> Iterator[str]:
    return (name for output in tree.find_all(nodes.Output) for node in output.nodes for name in _names(node))


def _names(node: nodes.Node) -> Iterator[str]:
    if isinstance(node, nodes.Name):
        yield node.name
    elif isinstance(node, nodes.Filter) and node.name in OF_TEXT and node.node is not None:
        yield from _names(node.node)
    elif isinstance(node, nodes.Concat):
        for part in node.nodes:
            yield from _names(part)
    elif isinstance(node, nodes.CondExpr):
        yield from _names(node.expr1)
        if node.expr2 is not None:
            yield from _names(node.expr2)
    elif isinstance(node, (nodes.Or, nodes.And)):
        yield from _names(node.left)
        yield from _names(node.right)
