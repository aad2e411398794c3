"""Rows: strict readers, seeded splits, a catalogue of ready sources."""

from .catalogue import find as find_source
from .catalogue import get as get_source
from .duplicates import Duplicates, deduplicate, normalize
from .memory import in_memory, rows_of
from .readers import Check, Found, Row, read_rows, refuse, usable
from .source import Source
from .sources import CATALOGUE
from .splits import few_shot, hold_out, split

__all__ = [
    "CATALOGUE",
    "Check",
    "Duplicates",
    "Found",
    "Row",
    "Source",
    "deduplicate",
    "few_shot",
    "find_source",
    "get_source",
    "hold_out",
    "in_memory",
    "normalize",
    "read_rows",
    "refuse",
    "rows_of",
    "split",
    "usable",
]
