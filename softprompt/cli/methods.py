"""`softprompt methods`."""

from __future__ import annotations

import inspect
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

    method = make_method(name)
    kind = type(method)
    out.print(f"{name}: {kind.title}\n")
    if kind.Spec.__doc__:
        out.print(inspect.cleandoc(kind.Spec.__doc__) + "\n")
    table = Table("setting", "default")
    for key, field in kind.Spec.model_fields.items():
        if key != "name":
            table.add_row(f"method.{key}", str(field.get_default(call_default_factory=True)))
    if method.defaults.lr:
        for key, value in vars(method.defaults).items():
            table.add_row(f"train.{key}", str(value))
    out.print(table)
