"""YAML as people mean it: a text stays as it is written, a key stands once, nothing unfolds into millions of nodes.

YAML 1.1 reads `no` as false, `12:30` as 750 and `010` as 8. Where a file holds texts (labels, words, demonstrations,
names), a plain scalar is text. It is a number or `true` / `false` only if writing that back gives the same characters.
In settings `yes`, `1_000` and `0x1F` are what YAML 1.1 says, and `1e-3` is a number; `12:30`, `010` and dates are
texts.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import yaml

from .errors import ConfigError
from .values import shown, text_of

TEXTS = frozenset(
    ("name", "verbalizer", "demonstrations", "template", "columns", "hold_out", "stop", "content_free", "option")
)
"""Keys under which a file holds texts."""

MAX_BYTES, _MAX_NODES = 4_000_000, 250_000  # a hand-written file has some thousands of nodes
_TAG = "tag:yaml.org,2002:"
_PLAIN = ("str", "int", "float", "bool", "null")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader but for what counts as a number: `1e-3` does, `12:30`, `010` and dates do not."""


class _Dumper(yaml.SafeDumper):
    """Quotes every text that `_Loader` or YAML 1.1 would read as something else."""


class _InlineDumper(_Dumper):
    """Writes line ends as escapes, so that a text stays in its line."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """In double quotes where it holds what cannot be seen."""
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')


_InlineDumper.add_representer(str, _InlineDumper.represent_str)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag.removeprefix(_TAG) in ("bool", "null", "merge")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_INT = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)
_Loader.add_implicit_resolver(_TAG + "int", _INT, list("-+0123456789"))
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+0123456789."))


def dump(data: Any) -> str:
    """A mapping as YAML that `load` reads as the same mapping."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def inline(value: Any) -> str:
    """A value in one line of YAML, as it may stand behind `key: ` or as a key."""
    text = yaml.dump(
        value,
        Dumper=_InlineDumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=True,
        width=float("inf"),
    )
    return str(text).removesuffix("\n...\n").rstrip("\n")


def load(text: str, where: str, under: Collection[str] = (), lines: bool = True) -> Any:
    """Read one YAML document.

    Args:
        where: named in front of every problem.
        under: keys that lead to this value, for a part of a file.
        lines: whether problems name the line.

    Raises:
        ConfigError: not YAML, a key that stands twice, aliases that hold themselves or too much, a tag of another kind.
    """
    return _Reader(where, lines).read(text, under)


class _Reader:
    """One document: nodes to values."""

    def __init__(self, where: str, lines: bool) -> None:
        self._where, self._lines = where, lines
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()
        self._scalars = yaml.constructor.SafeConstructor()

    def read(self, text: str, under: Collection[str]) -> Any:
        if len(text) > MAX_BYTES:
            raise ConfigError(f"{self._where}: has {len(text):,} characters; at most {MAX_BYTES:,} are read")
        try:
            node = yaml.compose(text, Loader=_Loader)
            if node is None:
                return None
            if self._size(node) > _MAX_NODES:
                raise ConfigError(f"{self._where}: its aliases unfold into more than {_MAX_NODES:,} values; write less")
            return self._value(node, next((key for key in under if key in TEXTS), ""))
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            reason = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise ConfigError(f"{self._at(mark)}: not valid YAML: {reason}") from None
        except RecursionError:
            raise ConfigError(f"{self._where}: is nested too deeply") from None

    def _at(self, mark: Any) -> str:
        return f"{self._where}:{mark.line + 1}" if mark and self._lines else self._where

    def _size(self, node: yaml.Node) -> int:
        """How many values a node stands for, with its aliases unfolded."""
        if id(node) in self._open:
            raise ConfigError(f"{self._at(node.start_mark)}: the alias holds itself; write the value out")
        if id(node) not in self._sizes:
            self._open.add(id(node))
            inner = node.value if isinstance(node, yaml.CollectionNode) else ()
            found = sum(
                map(self._size, (one for item in inner for one in (item if isinstance(item, tuple) else (item,))))
            )
            self._open.discard(id(node))
            self._sizes[id(node)] = found + 1
        return self._sizes[id(node)]

    def _value(self, node: yaml.Node, texts: str) -> Any:
        """
        Args:
            texts: the key of `TEXTS` under which the node stands, or nothing.
        """
        tag = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and tag == "map":
            return self._mapping(node, texts)
        if isinstance(node, yaml.SequenceNode) and tag == "seq":
            return [self._value(item, texts) for item in node.value]
        if not isinstance(node, yaml.ScalarNode) or tag not in _PLAIN:
            raise ConfigError(f"{self._at(node.start_mark)}: the tag {node.tag!r} is not read; write the value plainly")
        return self._scalar(node, tag, texts)

    def _scalar(self, node: yaml.ScalarNode, tag: str, texts: str) -> Any:
        if tag == "null":
            if node.value and texts == "verbalizer":
                raise ConfigError(
                    f"{self._at(node.start_mark)}: verbalizer holds {node.value}, which YAML reads as nothing; put it in "
                    "quotes if it is a word"
                )
            return None
        if tag == "str":
            return node.value
        try:
            value = getattr(self._scalars, f"construct_yaml_{tag}")(node)
        except (ValueError, KeyError):
            raise ConfigError(
                f"{self._at(node.start_mark)}: {shown(node.value)} is no {tag}; put it in quotes"
            ) from None
        return node.value if texts and text_of(value) != node.value else value

    def _mapping(self, node: yaml.MappingNode, texts: str) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        merged: dict[Any, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                merged = {**self._merged(value_node, texts), **merged}
                continue
            key = self._value(key_node, texts or "keys")
            if key is None or isinstance(key, (list, dict)):
                raise ConfigError(f"{self._at(key_node.start_mark)}: a key is {shown(key)}; put it in quotes")
            if (name := text_of(key)) in first:
                before = f" (first on line {first[name] + 1})" if self._lines else ""
                raise ConfigError(f"{self._at(key_node.start_mark)}: key {shown(name)} stands twice{before}; keep one")
            if key in found:  # 1, 1.0 and true are one key of a mapping
                same = next(text_of(one) for one in found if one == key)
                raise ConfigError(
                    f"{self._at(key_node.start_mark)}: the keys {same} and {name} are one number; put them in quotes"
                )
            first[name] = key_node.start_mark.line
            found[key] = self._value(value_node, texts or (str(key) if key in TEXTS else ""))
        return {**{key: value for key, value in merged.items() if key not in found}, **found}

    def _merged(self, node: yaml.Node, texts: str) -> dict[Any, Any]:
        """What `<<` brings: one mapping or several, of which the first counts most."""
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[Any, Any] = {}
        for part in parts:
            value = self._value(part, texts)
            if not isinstance(value, dict):
                raise ConfigError(f"{self._at(node.start_mark)}: << needs a mapping, got {shown(value)}")
            found = {**value, **found}
        return found
