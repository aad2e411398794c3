"""Where all our HTML pages come from: one style, one frame, one way to make text safe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_SHARED = Path(__file__).parent
CSS = Markup((_SHARED / "page.css").read_text(encoding="utf-8"))
"""The style of all our pages."""


def environment(folder: Path, **names: Any) -> Environment:
    """Templates of a folder. They may extend `frame.html.j2` and import `parts.html.j2`.

    A page needs nothing else: no script, no font, no file beside it. Text is escaped, and equal values give equal text.

    Args:
        names: what every template sees.
    """
    env = Environment(
        loader=FileSystemLoader([folder, _SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals |= {"css": CSS, **names}
    return env
