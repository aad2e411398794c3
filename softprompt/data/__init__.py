"""Rows: strict readers, seeded splits, a catalogue of ready sources."""

from .catalogue import CATALOGUE, Source
from .catalogue import get as get_source
from .readers import Row, read_rows
from .splits import deduplicate, few_shot, split

__all__ = ["CATALOGUE", "Row", "Source", "deduplicate", "few_shot", "get_source", "read_rows", "split"]
