"""The house: what imports what, and in how many places is asked what only one of them should know."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = {
    "softprompt": ROOT / "softprompt",
    "softprompt.adapters": ROOT / "adapters",
    "softprompt.benchmarks": ROOT / "benchmarks",
}
MODULES = {
    ".".join((package, *(part for part in file.relative_to(folder).with_suffix("").parts if part != "__init__"))): file
    for package, folder in PLACES.items()
    for file in folder.rglob("*.py")
}


def imported(module: str) -> Iterator[str]:
    """Modules of ours that a module imports, within functions as well; what only the types need is left out."""
    file = MODULES[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]

    def walk(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                yield child
            elif not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)):
                yield from walk(child)

    for node in walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
            continue
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        origin = ".".join([*above, *([node.module] if node.module else [])])
        for name in node.names:
            yield inner if (inner := f"{origin}.{name.name}") in MODULES else origin


def test_no_module_imports_itself_by_way_of_others():
    graph = {name: {other for other in imported(name) if other in MODULES and other != name} for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports go round: {' ← '.join(error.args[1])}")
