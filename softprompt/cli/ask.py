"""`softprompt ask`."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .app import app
from .console import out, progress, tell_cut
from .options import Bases, Dtype, Json, Quantization
from .outputs import refuse_replacing, tell_json
from .serving import manifests_of, named_folders, runtime_for

if TYPE_CHECKING:
    from ..runtime import Prediction


@app.command(
    "ask",
    epilog="Example: `softprompt ask letter.txt --with runs/about-a-bill --with urgent=runs/urgent`",
)
def ask_verb(
    source: Annotated[
        Path,
        typer.Argument(
            help="The document: a text file (without its last line break), a .json file with fields, or - for standard input."
        ),
    ],
    artifacts: Annotated[
        list[str], typer.Option("--with", help="Artifact or ensemble folder, or NAME=FOLDER. Repeat it for several.")
    ],
    base: Bases = None,
    dtype: Dtype = None,
    quantization: Quantization = None,
    document: Json = None,
) -> None:
    """Ask many artifacts about one document, which is read once for all that share its reading.

    Artifacts share it that have the same base and the same tokens in front of the text, and learn nothing before the text's
    end (infix, lora with activate: cue, hard, probe). `softprompt inspect` shows the reading of each. Write what an artifact
    asks into template.question, so that one instruction, or none, stands in front for all.
    """
    from ..readings import reading_digest

    refuse_replacing({"--json": document}, [source])
    fields = _document(source)
    folders = named_folders(artifacts)
    held = {name: manifests_of(path) for name, path in folders.items()}
    with progress() as show:
        runtime = runtime_for(folders, held, base or [], dtype, quantization, show)
        began = time.perf_counter()
        answers = runtime.ask(fields, list(folders), show)
        seconds = time.perf_counter() - began
    for name in folders:
        for prompt in runtime.prompts(name):
            tell_cut(prompt.bound)
    readings = {name: [reading_digest(manifest) for manifest in own.values()] for name, own in held.items()}
    count = Counter(digest for digests in readings.values() for digest in digests)
    # once for all that share it, and by each other artifact
    times = sum(1 if digest is not None else many for digest, many in count.items())
    shared = {digest for digest, many in count.items() if digest is not None and many > 1}
    _show(answers, {name: shared.issuperset(own) for name, own in readings.items()})
    out.print(
        f"read {times} time{'s' * (times > 1)} for {len(answers)} artifact{'s' * (len(answers) > 1)} in {seconds:.2f} s"
    )
    told = [answer.as_dict() for answer in answers]
    tell_json(document, {"answers": told, "readings": times, "seconds": seconds})


def _document(source: Path) -> Any:
    """A text, or fields.

    Raises:
        DataError: no text, or no fields.
    """
    from ..data.files import SUPPORTED
    from ..errors import DataError

    where = "standard input" if str(source) == "-" else str(source)
    suffix = source.suffix.lower()
    if suffix in SUPPORTED and suffix != ".json":
        raise DataError(f"{where}: holds rows, and one document is asked about; use softprompt predict --input {where}")
    try:
        raw = sys.stdin.buffer.read() if str(source) == "-" else source.read_bytes()
    except OSError as error:
        typed = '; a text itself is read from standard input: echo "TEXT" | softprompt ask - …'
        advice = typed if isinstance(error, FileNotFoundError) else ""
        raise DataError(f"{where[:200]}: cannot be read ({error.strerror or error}){advice}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{where}: is not UTF-8 text; save it as UTF-8") from None
    if suffix == ".json":
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise DataError(f"{where}: is no JSON ({error})") from None
        if not isinstance(fields, dict):
            raise DataError(f'{where}: expected an object with the fields of the document, e.g. {{"text": "…"}}')
        return fields
    if not text.strip():
        raise DataError(f"{where}: is empty; give a document")
    return text.rstrip("\n")


def _show(answers: Sequence[Prediction], shares: Mapping[str, bool]) -> None:
    """A line for each answer, and whether it shares the reading of the document with others."""
    table = Table("artifact", "answer", "probability", "reads the document")
    for answer in answers:
        sure = f"{answer.probabilities[answer.label]:.3f}" if answer.label in answer.probabilities else ""
        table.add_row(answer.artifact, _answer(answer), sure, "with others" if shares[answer.artifact] else "by itself")
    out.print(table)


def _answer(answer: Prediction) -> str:
    """An answer in one cell."""
    return json.dumps(answer.shown, ensure_ascii=False) if answer.shown else str(answer.label)
