"""`softprompt ask`."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .app import app
from .console import err, out, progress
from .options import Bases, Dtype, Json, Quantization
from .outputs import refuse_replacing, tell_json
from .serving import manifests_of, named_folders, runtime_for

if TYPE_CHECKING:
    from ..runtime import Prediction, Runtime


@app.command(
    "ask",
    epilog="Example: `softprompt ask letter.txt --with runs/about-a-bill --with urgent=runs/urgent`",
)
def ask_verb(
    source: Annotated[
        Path,
        typer.Argument(
            help="The document: a text file (without its last line break), a .json file of fields, or - (standard input)."
        ),
    ],
    artifacts: Annotated[
        list[str],
        typer.Option(
            "--with", help="Artifact or ensemble folder or hub:OWNER/NAME, also as NAME=FOLDER. Repeat it for several."
        ),
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
    refuse_replacing({"--json": document}, [source])
    fields = _document(source)
    folders = named_folders(artifacts)
    held = {name: manifests_of(path) for name, path in folders.items()}
    names = list(folders)
    with progress() as show:
        runtime = runtime_for(folders, held, base or [], dtype, quantization, show)
        began = time.perf_counter()
        answers = runtime.ask(fields, names, show)
        seconds = time.perf_counter() - began
    _warn(runtime, answers)
    readings = dict(zip(names, runtime.readings(fields, names), strict=True))
    count = Counter(key for own in readings.values() for key in own)
    # once for all that share it, and by each other artifact
    times = sum(1 if key is not None else many for key, many in count.items())
    _show(answers, {name: _how([key is not None and count[key] > 1 for key in own]) for name, own in readings.items()})
    out.print(
        f"read {times} time{'s' * (times > 1)} for {len(answers)} artifact{'s' * (len(answers) > 1)} in {seconds:.2f} s"
    )
    told = [answer.as_dict() for answer in answers]
    tell_json(document, {"answers": told, "readings": times, "seconds": seconds})


def _how(shared: Sequence[bool]) -> str:
    """How an artifact, or an ensemble's members, read the document."""
    if any(shared) and not all(shared):
        return f"{sum(shared)} of {len(shared)} members with others"
    return "with others" if any(shared) else "by itself"


def _warn(runtime: Runtime, answers: Sequence[Prediction]) -> None:
    """Say what there is to know of the answers: for whom the document was cut, and answers that are cut short or empty."""
    if cut := [answer.artifact for answer in answers if answer.truncated]:
        err.print(f"the document was too long and was cut for {', '.join(cut)}")
    for answer in answers:
        prompts = runtime.prompts(answer.artifact)
        warnings = prompts[0].form.notices([answer.label], [answer.cut])
        if any(prompt.bound.tied for prompt in prompts):
            warnings.append("different options have the same tokens in this base; the first one counts")
        for warning in warnings:
            err.print(f"warning: {answer.artifact}: {warning}")


def _document(source: Path) -> Any:
    """A text, or fields.

    Raises:
        DataError: no text, or no fields.
    """
    from ..data.files import SUPPORTED
    from ..data.json_files import json_object
    from ..errors import DataError
    from ..values import is_blank

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
            return json_object(text)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
    if is_blank(text):
        raise DataError(f"{where}: is empty; give a document")
    return re.sub(r"\r?\n\Z", "", text)


def _show(answers: Sequence[Prediction], reads: Mapping[str, str]) -> None:
    """A line for each answer, and whether it shares the reading of the document with others."""
    table = Table("artifact", "answer", "probability", "reads the document")
    for answer in answers:
        # a list of labels or tags says how likely each is itself
        one = isinstance(answer.label, str) and answer.label in answer.probabilities
        sure = f"{answer.probabilities[answer.label]:.3f}" if one else ""
        table.add_row(answer.artifact, _answer(answer), sure, reads[answer.artifact])
    out.print(table)


def _answer(answer: Prediction) -> str:
    """An answer in one cell."""
    return json.dumps(answer.shown, ensure_ascii=False) if answer.shown else str(answer.label)
