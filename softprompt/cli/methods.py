"""`softprompt methods`."""

from __future__ import annotations

import inspect
import json
from typing import Annotated, Any

import typer
from rich.table import Table

from .app import app
from .console import out
from .options import Json
from .outputs import refuse_replacing, tell_json


@app.command("methods", epilog="Examples: `softprompt methods`, `softprompt methods infix`")
def list_methods(
    name: Annotated[str | None, typer.Argument(help="Show this method's settings and defaults.")] = None,
    document: Json = None,
) -> None:
    """List the methods, one line each, or show one method's settings and defaults."""
    from .. import registry

    refuse_replacing({"--json": document})
    if name is not None:
        tell_json(document, _describe(name))
        return
    titles = {each: registry.find("softprompt.methods", each).title for each in registry.names("softprompt.methods")}
    for each, title in titles.items():
        out.print(f"{each:<8} {title}")
    tell_json(document, [{"name": each, "title": title} for each, title in titles.items()])


def _describe(name: str) -> dict[str, Any]:
    """Show a method's settings.

    Returns:
        The same as values.
    """
    from ..methods import make_method
    from ..runfile import TrainSpec
    from ..schema import explained

    method = make_method(name)
    out.print(f"{name}: {method.title}")
    settings: dict[str, tuple[Any, str]] = {}
    what = explained(method.Spec)
    if not what and method.Spec.__doc__:  # a package's own method may say it in another way
        out.print(inspect.cleandoc(method.Spec.__doc__))
    for key, value in method.spec.model_dump(exclude={"name"}).items():
        settings[f"method.{key}"] = value, what.get(key, "")
    if method.defaults.lr:
        what = explained(TrainSpec)
        if method.defaults.min_steps:
            what["epochs"] += f" Here at least {method.defaults.min_steps} steps are made."
            what["batch_size"] += f" With few rows a sixteenth of them, at least {method.defaults.least_batch}."
        for key, value in vars(method.defaults).items():
            if key in what:
                settings[f"train.{key}"] = value, what[key]
    table = Table("setting", "default", "what it is")
    for setting, (value, text) in settings.items():
        table.add_row(setting, _shown(value), text)
    out.print(table)
    told = {setting: {"default": value, "what": text} for setting, (value, text) in settings.items()}
    return {"name": name, "title": method.title, "settings": told}


def _shown(value: object) -> str:
    """A setting as YAML would have it."""
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
