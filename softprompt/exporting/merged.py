"""Format `merged`: a plain transformers model with what was learned in its weights, as `softprompt merge` makes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifact import Artifact
from ..base import Base
from ..methods import Method, make_method
from ..training.merging import HEAD, merge_into
from .format import FOLDER, Format, Written
from .peft import AUTO


class Merged(Format):
    """Written by the code of `softprompt merge`."""

    title = "transformers"

    @classmethod
    def lacking(cls, held: Artifact) -> str | None:
        """Only weights can be merged, and only those that act on every token."""
        manifest = held.manifest
        method = make_method(manifest.method)
        if type(method).merged is Method.merged:
            return f"what method {manifest.method['name']!r} has learned does not lie in weights"
        if getattr(method.spec, "activate", "always") == "cue" and manifest.kind != "seq2seq":
            return "an activated LoRA acts from the cue on only, so it cannot be merged"
        return None

    @classmethod
    def write(
        cls, held: Artifact, base: Base | None, folder: Path, name: str, row: Mapping[str, Any] | None
    ) -> Written:
        """Write the model, and the head as an artifact where there is one.

        Raises:
            ConfigError: PEFT cannot merge it.
        """
        assert base is not None
        has_head = merge_into(folder, held, base, name, str(held.path))
        auto = AUTO[held.manifest.kind]
        code = [
            f"from transformers import {auto}, AutoTokenizer",
            "",
            f'model = {auto}.from_pretrained("{FOLDER}")',
            f'tokenizer = AutoTokenizer.from_pretrained("{FOLDER}")',
        ]
        notes = [f"Numbers are {base.label_of_dtype}, as the base was held for the export."]
        if has_head:
            notes.append(
                f"The classifier is no part of the model. `{HEAD}` is an artifact of softprompt that holds it."
            )
        return Written("The whole model, with what was learned in its weights.", "\n".join(code), notes=tuple(notes))
