"""`softprompt methods`."""

from __future__ import annotations

import inspect
import json
import re
from typing import Annotated

import typer
from rich.table import Table

from .app import app
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
    from ..runfile import TrainSpec

    method = make_method(name)
    out.print(f"{name}: {method.title}")
    table = Table("setting", "default", "what it is")
    what = explained(method.Spec)
    if not what and method.Spec.__doc__:  # a package's own method may say it in another way
        out.print(inspect.cleandoc(method.Spec.__doc__))
    for key, value in method.spec.model_dump(exclude={"name"}).items():
        table.add_row(f"method.{key}", _shown(value), what.get(key, ""))
    if method.defaults.lr:
        what = explained(TrainSpec)
        if method.defaults.min_steps:
            what["epochs"] += f" Here {method.defaults.min_steps} steps are made at least."
        for key, value in vars(method.defaults).items():
            if key in what:
                table.add_row(f"train.{key}", _shown(value), what[key])
    out.print(table)


def _shown(value: object) -> str:
    """A setting as YAML would have it."""
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value


def explained(spec: type) -> dict[str, str]:
    """What the docstrings of a settings class and those it extends say of each setting."""
    found: dict[str, str] = {}
    for kind in reversed(spec.__mro__):
        _, _, listed = inspect.cleandoc(kind.__dict__.get("__doc__") or "").partition("Attributes:\n")
        for names, text in re.findall(r"^    (\w[\w, ]*): (.*(?:\n {5,}.*)*)", listed, re.MULTILINE):
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found
