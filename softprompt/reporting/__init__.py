"""What an evaluation says beyond its one number: per label, by probability, row by row; on a terminal, as a page, as JSON."""

from .page import CSS, page
from .report import Report, report_of
from .tables import tables

__all__ = ["CSS", "Report", "page", "report_of", "tables"]
