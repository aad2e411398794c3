"""Arguments and options that several verbs take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .outputs import json_target


def from_hub(value: Path | list[Path] | None) -> Path | list[Path] | None:
    """Artifacts that are named as on the hub, as folders (a `callback` of typer)."""
    if isinstance(value, list):
        return [_folder(one) for one in value]
    return None if value is None else _folder(value)


def _folder(source: Path) -> Path:
    if not str(source).startswith("hub:"):  # asked here: what knows more of it takes long to import
        return source
    from ..artifact import folder_of

    return folder_of(source)


RunFile = Annotated[Path, typer.Argument(help="Run file (YAML): base, task, method, train, cache, seed.")]
RunOrRows = Annotated[
    Path,
    typer.Argument(help="Run file (YAML): base, task, method, train, cache, seed; or a file of rows (CSV, JSONL …)."),
]
TextColumns = Annotated[
    list[str] | None,
    typer.Option("--text", help="Column to read; repeat it for several. Default: the longest texts."),
]
LabelColumn = Annotated[
    str | None, typer.Option("--label", help="Column with the answer. Default: the one with few values that repeat.")
]
LabelColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        help="Column with the answer. Default: the one with few values that repeat. Repeat it where each label has a column "
        "of 0 and 1.",
    ),
]
TaskType = Annotated[
    str | None,
    typer.Option(
        "--type", help="classification, multilabel, generation, span or tagging. Default: what fits the columns."
    ),
]
Settings = Annotated[
    list[str] | None, typer.Argument(help="key=value overrides, e.g. train.lr=0.01 method.length=16 seed=1.")
]
RunFolder = Annotated[Path, typer.Option("--out", help="Folder for the run: checkpoint, event log, artifact.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over even if the folder holds a checkpoint.")]
Test = Annotated[bool, typer.Option("--test", help="Also measure on the test rows, once, at the end.")]
ArtifactFolder = Annotated[
    Path,
    typer.Argument(
        callback=from_hub, help="Artifact folder, or the folder of the run that made it; or hub:OWNER/NAME[@REVISION]."
    ),
]
Dtype = Annotated[str | None, typer.Option("--dtype", help="fp32 or bf16 (default: the run's, else fp32).")]
Quantization = Annotated[
    str | None, typer.Option("--quantization", help="int8, nf4 or none (default: the run's, else none).")
]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="[FILE.json]",
        callback=json_target,
        help="Print one JSON document and nothing else. With a name that ends in .json: write it there.",
    ),
]
Bases = Annotated[
    list[str] | None,
    typer.Option("--base", help="Base to use (default: the one it was trained on). Repeat it if several are needed."),
]
