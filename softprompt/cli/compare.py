"""`softprompt bench compare` and `softprompt bench report`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from .bench import verbs
from .console import err, out, progress
from .options import Json
from .outputs import refuse_replacing, tell_json

_EXAMPLES = (
    "Examples: `softprompt bench compare quick --out runs/quick`, "
    "`softprompt bench compare suite.yaml seeds=[0,1,2,3,4] --only infix --only full --executor pool --workers 2 --out D`"
)


Suite = Annotated[str, typer.Argument(help="A ready suite's name (`quick`, …) or a suite file (docs/benchmarks.md).")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value overrides of the suite, e.g. test=300.")]
ResultsFolder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Results folder (default: runs/NAME). The same folder resumes a comparison that was cut short.",
    ),
]
Only = Annotated[
    list[str] | None, typer.Option("--only", help="Run these contenders or families only; may be repeated.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and its cost, and stop.")]
Estimate = Annotated[
    bool,
    typer.Option(
        "--estimate/--no-estimate",
        help="Time a step of each contender, to estimate the time of the whole comparison.",
    ),
]
Executor = Annotated[
    Literal["here", "pool", "ray"] | None,
    typer.Option("--executor", help="This process, processes, or a Ray cluster (default: pool, of one worker here)."),
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes, or actors of the cluster.")]
Address = Annotated[
    str | None, typer.Option("--address", help="Address of a Ray cluster (default: a cluster on this machine).")
]
Isolate = Annotated[
    bool, typer.Option("--isolate", help="Run each in a process of its own, to measure its peak memory.")
]
Artifacts = Annotated[bool, typer.Option("--artifacts", help="Keep the artifacts of the reported runs.")]


@verbs.command("compare", epilog=_EXAMPLES)
def compare_verb(
    suite: Suite,
    settings: Overrides = None,
    to: ResultsFolder = None,
    only: Only = None,
    dry_run: DryRun = False,
    estimate: Estimate = True,
    executor: Executor = None,
    workers: Workers = 1,
    address: Address = None,
    isolate: Isolate = False,
    artifacts: Artifacts = False,
    document: Json = None,
) -> None:
    """Compare methods: learning rates chosen on dev, several seeds, equal tuning, one report with intervals.

    Finished runs are not repeated. Failed runs are kept apart and tried again by the next call; the exit code is then 1.
    """
    from .. import registry

    refuse_replacing({"--json": document})
    command = shlex.join(["softprompt", *sys.argv[1:]])
    plans: list[dict[str, Any]] = []
    compare = registry.find("softprompt.benchmarks", "compare")
    with progress() as show:
        found = compare(
            suite,
            settings or [],
            to,
            only=only or [],
            dry_run=dry_run,
            estimate=estimate,
            executor=executor,
            workers=workers,
            address=address,
            isolate=isolate,
            artifacts=artifacts,
            command=command,
            plan=lambda plan: plans.append(plan) or _show(plan),  # type: ignore[func-returns-value]
            progress=show,
            notice=err.print,
        )
    if found is None:
        tell_json(document, plans[0])
        return
    _tell(found["tables"], found["verdicts"], found["files"])
    tell_json(document, _as_dict(found["tables"], found["verdicts"], found["files"]) | {"failed": found["failed"]})
    if found["failed"]:
        for reason in found["failed"]:
            err.print(f"failed: {reason}")
        raise typer.Exit(1)


@verbs.command("report", epilog="Example: `softprompt bench report runs/quick`")
def report_verb(
    folder: Annotated[Path, typer.Argument(help="Results folder of `bench compare`.")], document: Json = None
) -> None:
    """Write report.html, report.md and the CSV files of a results folder again."""
    from .. import registry

    refuse_replacing({"--json": document})
    files, tables, verdicts = registry.find("softprompt.benchmarks", "report")(folder)
    _tell(tables, verdicts, files)
    tell_json(document, _as_dict(tables, verdicts, files))


def _show(plan: dict[str, Any]) -> None:
    names = {"contender": "contender", "base": "base", "task": "task", "size": "rows", "trials": "trials"}
    names |= {"finals": "reported", "expected": "expected", "plan": "what runs how often"}
    table = Table(*names.values())
    for row in plan["rows"]:
        table.add_row(*(str(row[key]) for key in names))
    out.print(table)
    for line in plan["lines"]:
        out.print(line)


def _tell(tables: list[Any], verdicts: list[str], files: list[Path]) -> None:
    for table in tables:
        shown = Table(
            "contender", f"{table.metric.name}, mean over seeds", "seeds", "against the reference", title=table.title
        )
        for line in table.lines:
            mean, found = line.mean, line.comparison
            low, high = mean.interval
            value = f"{mean.value:.3f} [{low:.3f}, {high:.3f}]"
            shown.add_row(line.name, value, str(mean.seeds), "" if found is None else found.words)
        out.print(shown)
    for line in verdicts:
        out.print(line)
    for path in files:
        out.print(f"written: {path}")


def _as_dict(tables: list[Any], verdicts: list[str], files: list[Path]) -> dict[str, Any]:
    """What `_tell` shows, as values."""
    return {
        "tables": [
            {
                "title": table.title,
                "metric": table.metric.name,
                "contenders": [
                    {
                        "name": line.name,
                        "value": line.mean.value,
                        "interval": line.mean.interval,
                        "seeds": line.mean.seeds,
                        "against_reference": None if line.comparison is None else line.comparison.words,
                    }
                    for line in table.lines
                ],
            }
            for table in tables
        ],
        "verdicts": verdicts,
        "files": files,
    }
