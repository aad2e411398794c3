"""Artifacts for other programs: `export` writes one in a format that PEFT, transformers, vLLM or llama.cpp reads."""

from .format import Format, Written
from .prompt_embeds import request_for
from .run import export

__all__ = ["Format", "Written", "export", "request_for"]
