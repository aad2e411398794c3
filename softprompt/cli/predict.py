"""`softprompt predict`."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import visible_controls
from .app import app
from .console import err, progress, tell_cut
from .options import Bases, Dtype, Json, Quantization
from .outputs import behind_links, refuse_replacing, tell_json
from .serving import manifests_of, named_folders, runtime_for
from .streams import visible_json, write_whole

if TYPE_CHECKING:
    from ..runtime import Prediction, Runtime
    from ..tasks import Task


@app.command(
    "predict",
    epilog="Example: `softprompt predict movies=runs/movies tweets=runs/tweets --input rows.jsonl`, where a row reads "
    '`{"text": "…", "artifact": "tweets"}`',
)
def predict_verb(
    artifacts: Annotated[
        list[str],
        typer.Argument(help='Artifact folders or hub:OWNER/NAME, also as NAME=FOLDER; a row names one in "artifact".'),
    ],
    source: Annotated[Path, typer.Option("--input", help="Rows (JSONL, CSV, Parquet) with the template's fields.")],
    to: Annotated[
        Path | None,
        typer.Option("--output", callback=behind_links, help="File to write; its ending sets the format."),
    ] = None,
    base: Bases = None,
    dtype: Dtype = None,
    quantization: Quantization = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Show generated text as it comes, one row after the other.")
    ] = False,
    document: Json = None,
) -> None:
    """Answer rows, one JSON line each. Rows with different artifacts go through their base in one batch.

    The ending of --output sets its format: .jsonl, .json, .csv, .tsv or .parquet. A row without an "artifact" field is
    answered by the first artifact. An artifact is called like its folder unless it is given as NAME=FOLDER; so is an
    ensemble. A row's own fields come back unchanged. If an answer has the name of such a field, it becomes predicted_….
    """
    from ..data import read_rows
    from ..data.writers import check_output, check_rows, line, write_rows
    from ..tasks import Task

    if to is not None:
        check_output(to)
    refuse_replacing({"--output": to, "--json": document}, [source])
    folders = named_folders(artifacts)
    held = {name: manifests_of(path) for name, path in folders.items()}
    first = next(iter(held))
    manifests = {name: next(iter(own.values())) for name, own in held.items()}
    tasks = {name: Task.of_artifact(m.task, m.format_version) for name, m in manifests.items() if m.task}
    rows = read_rows(source, lambda values: _problem(values, tasks, first), notice=err.print)
    if to is not None:
        check_rows(to, [row.values for row in rows])
    asked = [_asked(row.values, tasks, first) for row in rows]
    with progress() as show:
        runtime = runtime_for(folders, held, base or [], dtype, quantization, show)
        if stream:
            found = []
            for values in asked:
                found.append(runtime.stream(values, first, _show))
                _show("\n")
        else:
            found = runtime.predict(asked, first, show)
    for name in folders:
        _warn(runtime, found, name, f"{name}: " if len(folders) > 1 else "")
    answered = _beside([row.values for row in rows], [item.as_dict() for item in found])
    if to is not None:
        write_rows(to, answered)
    tell_json(document, answered)
    if to is None and document is None:
        shown = visible_json if sys.stdout.isatty() else str  # files get the texts as they are
        sys.stdout.write("".join(shown(line(row)) + "\n" for row in answered))


def _warn(runtime: Runtime, found: list[Prediction], name: str, whose: str) -> None:
    """Say what there is to know of one artifact's answers: texts that were cut, answers cut short or empty."""
    prompts = runtime.prompts(name)
    for prompt in prompts:
        tell_cut(prompt.bound)
    own = [item for item in found if item.artifact == name]
    for warning in prompts[0].form.notices([item.label for item in own], [item.cut for item in own]):
        err.print(f"warning: {whose}{warning}")


def _beside(rows: list[dict[str, Any]], answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row with its answer, under names that no row has for something of its own; all rows have the same."""
    theirs = {name for row in rows for name in row}
    called: dict[str, str] = {}
    for key in dict.fromkeys(key for answer in answers for key in answer):
        # the artifact that a row names is the one that has answered it
        own = key in theirs and key != "artifact"
        called[key] = _free(key, theirs) if own else key
    if renamed := [f"{key!r} is {name!r}" for key, name in called.items() if key != name]:
        err.print(f"the rows have fields with these names, so answers are renamed: {', '.join(renamed)}")
    return [
        {**row, **{called[key]: value for key, value in answer.items()}}
        for row, answer in zip(rows, answers, strict=True)
    ]


def _free(key: str, taken: set[str]) -> str:
    """A name like this one that is not taken."""
    names = itertools.chain([f"predicted_{key}"], (f"predicted_{key}_{place}" for place in itertools.count(2)))
    return next(name for name in names if name not in taken)


def _show(text: str) -> None:
    """A piece of an answer, at once."""
    write_whole(visible_controls(text), sys.stderr)


def _problem(values: dict[str, Any], tasks: dict[str, Task], first: str) -> str | None:
    """Why a row cannot be answered, or None."""
    from ..config import suggest
    from ..values import shown

    name = _artifact_of(values, first)
    if not isinstance(name, str) or name not in tasks:
        return f"artifact {shown(name)} is not loaded{suggest(name if isinstance(name, str) else '', tasks)}"
    return tasks[name].check_input(_asked(values, tasks, first))


def _artifact_of(values: dict[str, Any], first: str) -> Any:
    """The artifact that a row names; the first, where it names none (a cell of a table is empty then)."""
    name = values.get("artifact")
    return first if name is None or name == "" else name


def _asked(values: dict[str, Any], tasks: dict[str, Task], first: str) -> dict[str, Any]:
    """A row as its task reads it: where it has a column that the task names (`data.columns`), that is taken, as in training."""
    from ..data.formats import unify

    columns = tasks[_artifact_of(values, first)].spec.data.columns
    found = {}
    for ours, theirs in columns.items():
        names = [theirs] if isinstance(theirs, str) else theirs
        there = next((name for name in names if name in values), None)
        if there is not None:
            found[ours] = values[there]
    return unify({**values, **found})[0] if found else values
