"""`softprompt predict`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import app
from .console import base_of, err, progress, tell_cut
from .options import Dtype, Quantization

if TYPE_CHECKING:
    from ..tasks import Task


@app.command(
    "predict",
    epilog="Example: `softprompt predict movies=runs/movies tweets=runs/tweets --input rows.jsonl`, where a row reads "
    '`{"text": "…", "artifact": "tweets"}`',
)
def predict_verb(
    artifacts: Annotated[
        list[str], typer.Argument(help='Artifact folders, or NAME=FOLDER; a row names one in "artifact".')
    ],
    source: Annotated[Path, typer.Option("--input", help="Rows (JSONL, CSV, Parquet) with the template's fields.")],
    to: Annotated[Path | None, typer.Option("--output", help="Write here instead of the standard output.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="Base to use (default: the first artifact's).")] = None,
    dtype: Dtype = None,
    quantization: Quantization = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Show the text of written answers as it comes, one row after the other.")
    ] = False,
) -> None:
    """Answer rows, one JSON line each. Rows with different artifacts go through the base in one batch.

    Without an "artifact" field a row is answered by the first artifact. Names are the folders' names unless given.
    """
    from ..artifact import load
    from ..data import read_rows
    from ..errors import ConfigError
    from ..runtime import Runtime
    from ..storage import write_text
    from ..tasks import Task
    from ..writing import cut_short

    folders: dict[str, Path] = {}
    for item in artifacts:
        name, sign, folder = item.partition("=")
        path = Path(folder if sign else item)
        name = name if sign else _name_of(path)
        if name in folders:
            raise ConfigError(f"two artifacts are called {name!r}; name them: first={folders[name]} second={path}")
        folders[name] = path
    held = {name: load(path) for name, path in folders.items()}
    first = next(iter(held))
    manifests = {name: item.manifest for name, item in held.items()}
    tasks = {name: Task.load(m.task, m.format_version) for name, m in manifests.items() if m.task}
    rows = read_rows(source, lambda values: _problem(values, tasks, first))
    with progress() as show:
        section = base_of(folders[first], held[first].manifest.base.id, base, dtype, quantization)
        runtime = Runtime(section.load(show))
        for name, path in folders.items():
            runtime.add(name, path)
        if stream:
            found = []
            for row in rows:
                found.append(runtime.stream(row.values, first, _show))
                _show("\n")
        else:
            found = runtime.predict([row.values for row in rows], first, show)
    for name in folders:
        bound = runtime.get(name).bound
        tell_cut(bound)
        if line := cut_short([item.cut for item in found if item.artifact == name], bound.task.longest_answer):
            err.print(f"warning: {line}" if len(folders) == 1 else f"warning: {name}: {line}")
    lines = [
        json.dumps({**row.values, **item.as_dict()}, ensure_ascii=False, default=str) + "\n"
        for row, item in zip(rows, found, strict=True)
    ]
    if to is not None:
        write_text(to, "".join(lines))
    else:
        sys.stdout.write("".join(lines))


def _show(text: str) -> None:
    """A piece of an answer, at once."""
    print(text, end="", file=sys.stderr, flush=True)


def _name_of(path: Path) -> str:
    full = path.resolve()
    return full.parent.name if full.name == "artifact" else full.name


def _problem(values: dict[str, Any], tasks: dict[str, Task], first: str) -> str | None:
    """Why a row cannot be answered, or None."""
    from ..config import suggest

    name = values.get("artifact", first)
    if not isinstance(name, str) or name not in tasks:
        return f"artifact {name!r} is not loaded{suggest(str(name), tasks)}"
    return tasks[name].check_input(values)
