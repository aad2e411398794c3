"""What an evaluation says beyond its one number: per label, by probability, row by row; on a terminal, as a page, as JSON."""

from .environment import environment
from .page import page
from .report import Report, report_of
from .tables import tables

__all__ = ["Report", "environment", "page", "report_of", "tables"]
