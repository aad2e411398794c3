"""Where all our HTML pages come from: one style, one frame, one way to make text safe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from ..errors import visible_controls

_SHARED = Path(__file__).parent
CSS = Markup((_SHARED / "page.css").read_text(encoding="utf-8"))
"""The style of all our pages."""


class _Page(Template):
    """A template whose page shows control characters, which HTML cannot hold, as escapes.

    The page is looked at as a whole: labels stand in charts, too, which are made outside of templates.
    """

    def render(self, *args: Any, **values: Any) -> str:
        """Fill the template in."""
        return visible_controls(super().render(*args, **values))


class _Pages(Environment):
    template_class = _Page


def environment(folder: Path, **names: Any) -> Environment:
    """Templates of a folder. They may extend `frame.html.j2` and import `parts.html.j2`.

    A page needs nothing else: no script, no font, no file beside it. Text is escaped, control characters are shown as
    escapes, and equal values give equal text.

    Args:
        names: what every template sees.
    """
    env = _Pages(
        loader=FileSystemLoader([folder, _SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals |= {"css": CSS, **names}
    return env
