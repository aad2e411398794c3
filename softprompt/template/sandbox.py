"""Jinja2 in an immutable sandbox: a template comes with an artifact, so it may neither run code nor fill the memory.

What can be seen in its source is refused when it is read: size, depth, statements that call themselves. The rest is
counted while it renders (`limits.py`); for that the tree is rewritten (`_Counting`), so that each loop, list and `~` says
what it makes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError, meta, nodes, pass_context
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.visitor import NodeTransformer

from ..config import suggest
from ..errors import DataError
from . import filters
from .limits import OUTPUT, Budget, current, power, repeated, running, size_of

RESERVED = frozenset({"soft", "mask"})
"""Names that stand for slots in a template's input, never for fields of a row."""

SOURCE = 16_384  # characters
_NODES = 4_000
_DEPTH = 40  # statements and expressions in each other
_LOOPS = 8  # Python refuses 20 blocks in each other
_SAFE_STATEMENTS = (
    nodes.Template,
    nodes.Output,
    nodes.For,
    nodes.If,
    nodes.Assign,
    nodes.AssignBlock,
    nodes.FilterBlock,
    nodes.With,
)
_SCOPES = ("_loop_vars", "_block_vars")  # Jinja2 passes these to every call inside of a loop
_FUNCTIONS = ("range", "dict", "namespace")  # of Jinja2's own
_REFUSED = frozenset(DEFAULT_NAMESPACE) - {*_FUNCTIONS}
_ROW = 4  # times a row's own size that its template may make of it


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2's immutable sandbox in which all that is made is accounted for."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Of plain values only methods whose result has a size that is known."""
        if callable(value):
            known = next((names for kind, names in filters.METHODS.items() if isinstance(obj, kind)), None)
            if known is not None and attr not in known:
                return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Any:
        """`str.format` can pad to any size."""
        if super().wrap_str_format(value) is not None:
            raise SecurityError("a template may not use str.format")

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call something; what it gives is accounted for."""
        if isinstance(getattr(__obj, "__self__", None), str):
            for name in _SCOPES:
                kwargs.pop(name, None)
            return filters.call(__obj, *args, **kwargs)
        return current().made(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute `left operator right` unless the result would be huge."""
        if operator == "%" and isinstance(left, (str, bytes)):
            raise SecurityError("a template may not format by %")
        if operator == "*":
            repeated(*((left, right) if hasattr(left, "__len__") else (right, left)))
        elif operator == "**":
            power(left, right)
        elif operator == "+" and hasattr(left, "__len__"):
            most = current().largest
            current().spend(size_of(left, most) + size_of(right, most))
        return super().call_binop(context, operator, left, right)


class _Counting(NodeTransformer):
    """Rewrites a template's tree: loops, `~`, slices and lists go through filters whose names no template can write."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        fixed = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        node.iter = _through("*steps", node.iter, nodes.Const(fixed))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _through("*concat", nodes.List(node.nodes))

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _through("*made", node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return _through("*made", node)

    visit_List = visit_Dict

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _through("*made", node) if node.ctx == "load" else node


def _through(name: str, value: nodes.Node, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None, lineno=value.lineno)


def _concat(parts: list[Any]) -> str:
    current().spend(size_of(parts, current().largest))
    for part in parts:
        current().check_text(part)
    return "".join(map(str, parts))


@pass_context
def _given_out(_context: Any, value: Any) -> str:
    return current().given_out(value)


# nothing is computed when a template is compiled: there is no budget yet (`optimized`, and a `finalize` that reads the context)
JINJA = _Sandbox(
    undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False, optimized=False, finalize=_given_out
)
JINJA.filters = {
    **filters.filters(),
    "*steps": lambda items, weight: current().steps(items, weight),
    "*concat": _concat,
    "*made": lambda value: current().made(value),
}
JINJA.globals = {name: JINJA.globals[name] for name in _FUNCTIONS}


def parse(text: str) -> nodes.Template:
    """A template's tree, small enough to be walked through.

    Raises:
        ValueError: it is no Jinja2, or more than a row needs.
    """
    if len(text) > SOURCE:
        raise ValueError(f"is {len(text)} characters long; a template has at most {SOURCE}")
    try:
        tree = JINJA.parse(text)
    except TemplateError as error:
        raise ValueError(f"line {getattr(error, 'lineno', 1)} is not valid Jinja2: {_shown(error)}") from None
    except (RecursionError, MemoryError):
        raise ValueError(f"has expressions in each other more than {_DEPTH} deep") from None
    count = 0
    rest: list[tuple[nodes.Node, int, int]] = [(tree, 0, 0)]
    while rest:
        node, depth, loops = rest.pop()
        count, loops = count + 1, loops + isinstance(node, nodes.For)
        if depth > _DEPTH or loops > _LOOPS:
            raise ValueError(f"has expressions more than {_DEPTH}, or loops more than {_LOOPS} deep in each other")
        if isinstance(node, nodes.Stmt) and not isinstance(node, _SAFE_STATEMENTS):
            raise ValueError(f"line {node.lineno} holds a {type(node).__name__.lower()}, which a template may not")
        if isinstance(node, nodes.For) and node.recursive:
            raise ValueError(f"line {node.lineno} holds a recursive loop, which a template may not")
        if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name in _REFUSED:
            raise ValueError(f"line {node.lineno} calls {node.node.name}, which a template may not")
        rest.extend((child, depth + 1, loops) for child in node.iter_child_nodes())
    if count > _NODES:
        raise ValueError(f"has {count} parts; at most {_NODES}")
    return tree


@functools.lru_cache(maxsize=256)
def compiled(text: str) -> Template:
    """A template ready to be rendered.

    Raises:
        ValueError: as `parse`, or an unknown filter or test.
    """
    return _compiled(parse(text))


def armoured(text: str, change: Callable[[str], str]) -> Template:
    """The same, with its own texts (not those of rows) changed."""
    tree = parse(text)
    for data in tree.find_all(nodes.TemplateData):
        data.data = change(data.data)
    for const in tree.find_all(nodes.Const):
        if isinstance(const.value, str):
            const.value = change(const.value)
    return _compiled(tree)


def _compiled(tree: nodes.Template) -> Template:
    try:
        return JINJA.from_string(_Counting().visit(tree))
    except TemplateError as error:
        raise ValueError(f"line {getattr(error, 'lineno', 1)}: {_shown(error)}") from None
    except (SyntaxError, RecursionError, MemoryError, OverflowError) as error:
        raise ValueError(f"cannot be compiled: {type(error).__name__}: {_shown(error)}") from None


def variables(text: str) -> set[str]:
    """Names of the row's fields that a Jinja2 text reads (and of slots in it)."""
    return set(_variables(text))


@functools.lru_cache(maxsize=256)
def _variables(text: str) -> frozenset[str]:
    return frozenset(meta.find_undeclared_variables(parse(text)))


def render(
    text: str,
    values: Mapping[str, Any],
    where: str,
    most: int = OUTPUT,
    plain: bool = True,
    template: Template | None = None,
) -> str:
    """Render Jinja2 text.

    Args:
        most: characters that it may give, beside those of the row.
        plain: only texts and numbers are given out (see `Budget`).
        template: the text compiled (see `armoured`).

    Raises:
        DataError: a field is missing, or the template fails on this row.
    """
    sizes = sum(len(value) if isinstance(value, str) else size_of(value, 10**9) for value in values.values())
    try:
        template = template or compiled(text)
        context = template.new_context(dict(values))
        with running(Budget(most + _ROW * sizes, plain)):
            return "".join(template.root_render_func(context))
    except UndefinedError as error:
        missing = sorted(variables(text) - set(values) - set(JINJA.globals))
        hint = suggest(missing[0], set(values) - RESERVED) if missing else ""
        name = f"the row has no field {missing[0]!r}{hint}" if missing else _shown(error)
        raise DataError(f"{where}: {name}") from None
    except Exception as error:  # whatever a stranger's template does
        raise DataError(f"{where}: the template cannot be rendered: {_shown(error)}") from None


def _shown(error: BaseException) -> str:
    """What an error says, short and in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
