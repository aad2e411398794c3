"""`eval --report`: on the terminal, or in the form of a file's ending."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import out
from .outputs import STDOUT, behind_links

if TYPE_CHECKING:
    from ..reporting import Report

ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="[FILE.html|FILE.json]",
        callback=behind_links,
        help="Also show the scores of each label, confusions, thresholds and the worst rows. With a name: write them there.",
    ),
]


def check_report(path: Path | None) -> None:
    """Refuse a file of another form, before the work.

    Raises:
        ConfigError: it ends neither in .html nor in .json.
    """
    from ..errors import ConfigError

    if path is not None and path != STDOUT and path.suffix.lower() not in (".html", ".json"):
        raise ConfigError(f"--report {path}: no such form; name a file that ends in .html or .json")


def tell_report(report: Report, to: Path) -> None:
    """Show a report, or write it."""
    from ..data.writers import plain
    from ..reporting import page, tables
    from ..storage import write_json, write_text

    if to == STDOUT:
        for piece in tables(report):
            out.print(piece)
        return
    if to.suffix.lower() == ".json":
        write_json(to, plain(report.as_dict()))
    else:
        write_text(to, page(report))
    out.print(f"report: {to}")
