"""`softprompt methods`."""

from __future__ import annotations

from rich.table import Table

from . import app
from .console import out


@app.command("methods")
def list_methods() -> None:
    """Show what can be trained, one line each, with its settings and their defaults."""
    from .. import registry

    table = Table("method", "what is learned", "settings (defaults)", "learning rate")
    for name in registry.names("softprompt.methods"):
        kind = registry.find("softprompt.methods", name)
        fields = {key: field for key, field in kind.Spec.model_fields.items() if key != "name"}
        settings = ", ".join(f"{key}={field.default}" for key, field in fields.items() if field.default is not None)
        table.add_row(name, kind.title, settings or "–", f"{kind.defaults.lr:g}" if kind.defaults.lr else "–")
    out.print(table)
