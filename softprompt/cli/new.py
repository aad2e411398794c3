"""`softprompt new`, and what `train` does where it is given a file of rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import app
from .console import err, out
from .options import Json, LabelColumns, TaskType, TextColumns
from .outputs import behind_links, refuse_replacing, tell_json

if TYPE_CHECKING:
    from ..runfile import RunSpec


@app.command(
    "new",
    epilog="Examples: `softprompt new tickets.csv`, `softprompt new tickets.csv --text subject --text message --label team "
    "--out team.yaml`",
)
def new_verb(
    data: Annotated[Path, typer.Argument(help="Rows: a file in CSV, TSV, JSONL, JSON or Parquet.")],
    text: TextColumns = None,
    label: LabelColumns = None,
    kind: TaskType = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--out", callback=behind_links, help="Run file to write (default: the data's name with .yaml, here)."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a run file that is there.")] = False,
    document: Json = None,
) -> None:
    """Look at a file of rows, say what is in it, and write a run file for it with a comment for each key.

    It writes `.softprompt-run.schema.json` beside it, so that editors can complete and check the keys.
    """
    from ..errors import ConfigError
    from ..proposal import command_of, look, propose_run, summary, written
    from ..schema import BESIDE, as_json, modeline
    from ..storage import write_text

    to = to or Path(f"{data.stem}.yaml")
    if to.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(f"--out {to}: is no name of a run file; end it in .yaml")
    if to.exists() and not force:
        raise ConfigError(f"{to}: is there already; --force replaces it, --out names another file")
    refuse_replacing({"--out": to, "--json": document}, [data])
    found = propose_run(look(data, text or [], label or [], kind))
    for line in summary(found):
        out.print(line)
    write_text(to.with_name(BESIDE), as_json("run"))
    write_text(to, modeline(BESIDE) + written(found, to.parent, command_of(to)))
    out.print(f"wrote {to}; next: {command_of(to)}")
    splits = {name: len(part) for name, part in found.splits.items()}
    told = {"seen": summary(found), "labels": found.seen.labels, "splits": splits, "run": found.run}
    tell_json(document, {"file": to, "next": command_of(to), **told})


def run_for_rows(
    data: Path, settings: list[str], text: list[str] | None, label: list[str] | None, kind: str | None
) -> RunSpec:
    """The run that is proposed for a file of rows, with what the command line sets; says what was seen.

    Where labels are told apart and no method is set, `auto` chooses it, and a base that is not set.

    Raises:
        SoftpromptError: the file, or the settings, cannot be used.
    """
    from ..proposal import look, propose_run, summary
    from ..run_reader import make_run

    found = propose_run(look(data, text or [], label or [], kind), _base_of(settings))
    said = summary(found)
    keys = {item.partition("=")[0].partition(".")[0] for item in settings}
    if found.seen.roles.kind == "classification" and "method" not in keys:
        found.run["method"] = "auto"
        if not any(item.startswith(("base=", "base.name=")) for item in settings):
            found.run["base"] = "auto"
    spec = make_run(found.run, settings, str(data), whole=True)
    for line in said:
        err.print(line)
    return spec


def _base_of(settings: list[str]) -> str | None:
    """The base that the command line names; None where it names none, or leaves it open."""
    from ..config import override

    named = [item for item in settings if item.partition("=")[0] in ("base", "base.name")]
    base = override({}, named).get("base")
    name = base.get("name") if isinstance(base, dict) else base
    return name if isinstance(name, str) and name != "auto" else None
