"""The catalogue: one file a package that data is taken from."""

from ..catalogue import Source
from . import addresses, definitions, ui_strings, vader

CATALOGUE: dict[str, Source] = {
    source.name: source for source in (*vader.SOURCES, *ui_strings.SOURCES, *addresses.SOURCES, *definitions.SOURCES)
}
