"""The README of an export: what it is, the base that it belongs to, how to load it."""

from __future__ import annotations

import re

from ..artifact import Manifest
from ..artifact.files import one_line
from .format import BASE, FOLDER, Written


def readme(title: str, manifest: Manifest, written: Written) -> str:
    """Markdown. Names from the manifest stand in code spans, in which nothing is markup."""
    base, named = manifest.base, manifest.task["name"] if manifest.task else "prompt"
    lines = [f"# {_code(named)} for {title}", "", written.what, ""]
    lines += [f"- Method: {_code(manifest.method['name'])}, trained with softprompt {_code(manifest.softprompt)}."]
    lines += [f"- Base: {_code(base.id)}, digest {_code(base.digest)}. On any other base it says nothing useful."]
    lines += [f"- Tokenizer: digest {_code(base.tokenizer_digest)}."]
    lines += [f"- {note}" for note in written.notes]
    places = " and ".join(f"`{place}`" for place in (FOLDER, BASE) if place in written.code)
    lines += ["", "## Load", "", f"Replace {places}:", "", f"```{written.language}", written.code, "```"]
    return "\n".join(lines) + "\n"


def verbatim(text: str) -> str:
    """A code span that shows a text as it is, backticks included."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}"


def _code(text: str) -> str:
    return f"`{one_line(text, 200).replace('`', chr(39))}`"
