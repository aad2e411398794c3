"""Rows: strict readers, seeded splits, a catalogue of ready sources."""

from .catalogue import get as get_source
from .duplicates import Duplicates, deduplicate, normalize
from .readers import Row, read_rows, refuse
from .source import Source
from .sources import CATALOGUE
from .splits import few_shot, hold_out, split

__all__ = [
    "CATALOGUE",
    "Duplicates",
    "Row",
    "Source",
    "deduplicate",
    "few_shot",
    "get_source",
    "hold_out",
    "normalize",
    "read_rows",
    "refuse",
    "split",
]
