"""`softprompt methods`."""

from __future__ import annotations

import inspect
import re
from typing import Annotated

import typer
from rich.table import Table

from . import app
from .console import out


@app.command("methods", epilog="Examples: `softprompt methods`, `softprompt methods infix`")
def list_methods(
    name: Annotated[str | None, typer.Argument(help="Show this method's settings and defaults.")] = None,
) -> None:
    """Show what can be trained, one line each; or one method's settings and defaults."""
    from .. import registry

    if name is not None:
        _describe(name)
        return
    for each in registry.names("softprompt.methods"):
        out.print(f"{each:<8} {registry.find('softprompt.methods', each).title}")


def _describe(name: str) -> None:
    from ..methods import make_method
    from ..training.spec import TrainSpec

    method = make_method(name)
    out.print(f"{name}: {method.title}")
    table = Table("setting", "default", "what it is")
    what = _explained(method.Spec)
    for key, value in method.spec.model_dump(exclude={"name"}).items():
        table.add_row(f"method.{key}", _shown(value), what.get(key, ""))
    if method.defaults.lr:
        what = _explained(TrainSpec)
        for key, value in vars(method.defaults).items():
            if key == "min_steps":
                if value:
                    table.add_row("", _shown(value), "steps at least: of few rows more epochs are made")
                continue
            table.add_row(f"train.{key}", _shown(value), what.get(key, ""))
    out.print(table)


def _shown(value: object) -> str:
    """A setting as YAML would have it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _explained(spec: type) -> dict[str, str]:
    """What the docstrings of a settings class and those it extends say of each setting."""
    found: dict[str, str] = {}
    for kind in reversed(spec.__mro__):
        _, _, listed = inspect.cleandoc(kind.__dict__.get("__doc__") or "").partition("Attributes:\n")
        for names, text in re.findall(r"^    (\w[\w, ]*): (.*(?:\n {5,}.*)*)", listed, re.MULTILINE):
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found
