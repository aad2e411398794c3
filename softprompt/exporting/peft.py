"""Format `peft`: the folder that plain PEFT loads, without what only softprompt reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifact import Artifact
from ..artifact.card import sample_of
from ..artifact.peft_format import CONFIG, TENSORS
from ..artifact.row_text import row_text
from ..base import Base
from .format import BASE, FOLDER, Format, Written
from .readme import verbatim

AUTO = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "encoder": "AutoModel",
    "seq2seq": "AutoModelForSeq2SeqLM",
}
"""transformers' class for each kind of base."""


class Peft(Format):
    """An artifact holds PEFT's two files already wherever PEFT can load it. They are copied as they are."""

    title = "PEFT"
    needs_base = False

    @classmethod
    def lacking(cls, held: Artifact) -> str | None:
        """What the manifest says under `loads_in`; format 1 did not say it."""
        if (held.manifest.loads_in or "").startswith("peft"):
            return None
        if held.manifest.format_version == 1:
            return "artifacts of format 1 do not say whether PEFT loads them"
        return f"PEFT has no place for what method {held.manifest.method['name']!r} has learned here"

    @classmethod
    def write(
        cls, held: Artifact, base: Base | None, folder: Path, name: str, row: Mapping[str, Any] | None
    ) -> Written:
        """Copy the configuration and the tensors."""
        copy_files(held, folder)
        auto = AUTO[held.manifest.kind]
        code = [
            "from peft import PeftModel",
            f"from transformers import {auto}",
            "",
            f'model = {auto}.from_pretrained("{BASE}")',
            f'model = PeftModel.from_pretrained(model, "{FOLDER}")',
        ]
        return Written("A folder of PEFT's.", "\n".join(code), notes=_notes(held))


def copy_files(held: Artifact, folder: Path) -> None:
    """PEFT's two files of an artifact that PEFT loads."""
    assert held.path is not None
    for file in (CONFIG, TENSORS):
        (folder / file).write_bytes((held.path / file).read_bytes())


def _notes(held: Artifact) -> tuple[str, ...]:
    manifest = held.manifest
    row = sample_of(manifest)
    text = row_text(manifest, row)
    shown, told = (verbatim(json.dumps(value, ensure_ascii=False)) for value in (row, text))
    notes = [
        "The template is yours to fill in; the artifact's `manifest.json` has it."
        if text is None
        else f"The text of the row {shown} is, in front of its answer, {told}."
    ]
    if manifest.layout.place == "front":
        notes.append(f"The text starts at position {manifest.layout.length}.")
    if manifest.loads_in != "peft":
        notes.append(f"It loads in {manifest.loads_in}, the prefix among them. In longer rows PEFT answers otherwise.")
    return tuple(notes)
