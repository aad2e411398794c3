"""Tables for notebooks."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from .errors import visible


def summary_html(values: Mapping[str, Any], title: str = "") -> str:
    """Names and values as a small HTML table; everything in them is text."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{_safe(name)}</th><td style='text-align:left'>{_safe(value)}</td></tr>"
        for name, value in values.items()
    )
    head = f"<caption style='text-align:left'><b>{_safe(title)}</b></caption>" if title else ""
    return f"<table>{head}{rows}</table>"


def _safe(value: Any) -> str:
    return html.escape(visible(str(value)))
