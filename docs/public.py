"""The public names of softprompt: what `__all__` of the packages below exports.

The reference (conf.py) and its tests read this one list. Packages that no page asks anyone to import are not in it:
`engine`, `template`, `auto`, `proposal` and `reporting` export names to the rest of softprompt alone.
`softprompt.lm_eval` exports one class, which needs a large extra to be imported: docs/lm-eval.md describes it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = (
    "softprompt",
    "softprompt.estimators",
    "softprompt.peft",
    "softprompt.tasks",
    "softprompt.data",
    "softprompt.metrics",
    "softprompt.training",
    "softprompt.artifact",
    "softprompt.exporting",
    "softprompt.doctor",
    "softprompt.trackers",
    "softprompt.methods",
    "softprompt.answers",
    "softprompt.base",
)


@dataclass(frozen=True)
class PublicName:
    """One exported name, and where it is written."""

    package: str
    name: str
    value: Any
    file: Path
    line: int
    doc: str

    @property
    def full(self) -> str:
        """The name as one imports it."""
        return f"{self.package}.{self.name}"


def public_names() -> Iterator[PublicName]:
    """Every public name once, under the first of `PACKAGES` that exports it."""
    seen: set[tuple[str, str]] = set()
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            file, line, doc = _written(module.__file__ or "", name, value)
            if (str(file), name) not in seen:
                seen.add((str(file), name))
                yield PublicName(package, name, value, file, line, doc)


def _written(package_file: str, name: str, value: Any) -> tuple[Path, int, str]:
    """Where a name is written, and its docstring; a constant's is the text below its assignment."""
    if inspect.ismodule(value):
        return Path(value.__file__ or ""), 1, value.__doc__ or ""
    if inspect.isclass(value) or inspect.isfunction(value):
        _, line = inspect.getsourcelines(value)
        own = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
        return Path(sys.modules[value.__module__].__file__ or ""), line, inspect.cleandoc(own or "")
    return _constant(Path(package_file), name)


def _constant(file: Path, name: str) -> tuple[Path, int, str]:
    """A constant's file, line and text: its package may import it from a module, which may import it from the next."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            text = after.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
            return file, node.lineno, str(text.value) if text else ""
        if isinstance(node, ast.ImportFrom) and name in [each.name for each in node.names]:
            inner = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            return _constant(inner / "__init__.py" if inner.is_dir() else inner.with_suffix(".py"), name)
    raise LookupError(f"{file}: {name} is exported, but nothing assigns it")
