"""How a template reads a row's fields: what it prints as it is must be text; what it takes apart may be a list."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from jinja2 import nodes

from .sandbox import parse

_OF_TEXT = frozenset(
    ("capitalize", "e", "escape", "lower", "replace", "string", "title", "trim", "truncate", "upper", "wordwrap")
)


@lru_cache(maxsize=256)
def printed(text: str) -> frozenset[str]:
    """Names that a Jinja2 text puts into its output as they are, or through a filter for texts."""
    found = (name for output in parse(text).find_all(nodes.Output) for node in output.nodes for name in _names(node))
    return frozenset(found)


def _names(node: nodes.Node) -> Iterator[str]:
    if isinstance(node, nodes.Name):
        yield node.name
    elif isinstance(node, nodes.Filter) and node.name in _OF_TEXT and node.node is not None:
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
