"""The report of a comparison: one HTML page, the same in Markdown, and its numbers as CSV."""

from __future__ import annotations

from pathlib import Path

from softprompt.benchmarks.compare.report.gather import Report, gather
from softprompt.benchmarks.compare.report.markdown import markdown
from softprompt.benchmarks.compare.report.page import Texts, page
from softprompt.benchmarks.compare.report.sheets import runs, summary
from softprompt.benchmarks.compare.results import Results
from softprompt.storage import write_text

__all__ = ["write", "write_report"]


def write_report(folder: Path, texts: Texts | None = None) -> list[Path]:
    """Write `report.html`, `report.md`, `report.csv` (a line a run and test) and `summary.csv` into a results folder.

    Args:
        texts: gives for a test its rows' texts by `file:line`; examples of rows are shown without texts if not given.

    Returns:
        The files, the page first. Equal results give equal bytes.

    Raises:
        DataError: no results folder, no reported run that ended well, or a broken record.
        MissingExtraError: matplotlib or statsmodels is not installed.
    """
    return write(gather(Results.load(folder)), texts)


def write(report: Report, texts: Texts | None = None) -> list[Path]:
    """`write_report` of what was gathered already."""
    folder = report.results.folder
    made = {
        "report.html": page(report, texts),
        "report.md": markdown(report),
        "report.csv": runs(report),
        "summary.csv": summary(report),
    }
    for name, content in made.items():
        write_text(folder / name, content)
    return [folder / name for name in made]
