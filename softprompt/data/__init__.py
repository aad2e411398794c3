"""Rows: strict readers, seeded splits, a catalogue of ready sources."""

from .catalogue import CATALOGUE, Source
from .catalogue import get as get_source
from .readers import Row, read_rows
from .splits import Duplicates, deduplicate, few_shot, normalize, split

__all__ = [
    "CATALOGUE",
    "Duplicates",
    "Row",
    "Source",
    "deduplicate",
    "few_shot",
    "get_source",
    "normalize",
    "read_rows",
    "split",
]
