"""The catalogue: one file a package that data is taken from, or that makes it."""

from ..source import Source
from . import addresses, arithmetic, definitions, newspaper, ui_strings, vader

CATALOGUE: dict[str, Source] = {
    source.name: source
    for sources in (vader, ui_strings, addresses, newspaper, definitions, arithmetic)
    for source in sources.SOURCES
}
"""All ready data by name; `softprompt data list` shows it."""
