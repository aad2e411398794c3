"""Format `gguf-alora`: an activated LoRA as the folder that llama.cpp's `convert_lora_to_gguf.py` reads.

That script reads A and B matrices by their names, and of the configuration `lora_alpha`, `alora_invocation_tokens` and
`base_model_name_or_path`. It takes no other settings into account, so what they would change is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifact import Artifact
from ..artifact.files import read_json
from ..artifact.peft_format import CONFIG
from ..base import Base
from .format import BASE, FOLDER, Format, Written
from .peft import Peft, copy_files

ENDS = (".lora_A.weight", ".lora_B.weight")
_IGNORED = {
    "use_rslora": "method.rslora, which scales by the root of the rank",
    "use_dora": "method.dora, which has magnitudes of its own",
    "fan_in_fan_out": "the base's transposed weights (GPT-2), which the script would transpose again",
    "alpha_pattern": "alpha_pattern, another scale for some layers",
}


class GgufAlora(Format):
    """PEFT's folder, checked field by field against what the script reads."""

    title = "llama.cpp"
    needs_base = False

    @classmethod
    def lacking(cls, held: Artifact) -> str | None:
        """An activated LoRA that the script reads as PEFT does."""
        if held.manifest.method.get("activate") != "cue":
            return "only an activated LoRA (method lora, activate: cue) has tokens that activate it"
        if (why := Peft.lacking(held)) is not None:
            return why
        assert held.path is not None
        config = read_json(held.path, CONFIG)
        if not config.get("alora_invocation_tokens"):
            return f"its {CONFIG} names no tokens that activate it"
        for key, what in _IGNORED.items():
            if config.get(key):
                return f"llama.cpp's convert_lora_to_gguf.py does not read {what}"
        if other := sorted(name for name in held.tensors if not name.endswith(ENDS)):
            return f"llama.cpp's convert_lora_to_gguf.py does not read the tensor {other[0][:80]!r}"
        return None

    @classmethod
    def write(
        cls, held: Artifact, base: Base | None, folder: Path, name: str, row: Mapping[str, Any] | None
    ) -> Written:
        """Copy the configuration and the tensors."""
        copy_files(held, folder)
        tokens = read_json(folder, CONFIG)["alora_invocation_tokens"]
        code = [
            f"python convert_lora_to_gguf.py {FOLDER} --base {BASE} --outfile adapter.gguf",
            "llama-server -m base.gguf --lora adapter.gguf",
        ]
        notes = (
            f"It acts from the tokens `{tokens}` on, the last time that they stand in a prompt.",
            "The script needs the base's `config.json` only, not its weights. `base.gguf` is the base as llama.cpp runs it.",
        )
        return Written("An activated LoRA, as PEFT saves one.", "\n".join(code), "sh", notes)
