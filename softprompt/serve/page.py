"""The page at `/`: a text, artifacts to tick, their answers. It needs nothing from elsewhere."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ..reporting.environment import environment


@cache
def page(secret: bool) -> str:
    """The page.

    Args:
        secret: it asks for a token.
    """
    template = environment(Path(__file__).parent).get_template("page.html.j2")
    return template.render(title="Ask softprompt", secret=secret)
