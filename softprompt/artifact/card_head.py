"""The head of a model card: YAML by which the Hugging Face hub lists an artifact."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

_PIPELINES = {
    "classification": "text-classification",
    "multilabel": "text-classification",
    "choice": "multiple-choice",
    "generation": "text-generation",
    "span": "question-answering",
    "tagging": "token-classification",
}
"""What the hub calls task types."""


def card_head(bases: Sequence[str], task: dict[str, Any] | None, tags: Sequence[str]) -> str:
    """The head with its marks.

    Args:
        bases: their ids.
        task: as in the manifest.
    """
    pipeline = _PIPELINES.get(task["type"]) if task else None
    # JSON is YAML, so no name can break out of its line
    several = ["base_model:", *(f"- {_json(base)}" for base in bases)]
    lines = several if len(bases) > 1 else [f"base_model: {_json(bases[0])}"]
    lines += ["library_name: softprompt", *([f"pipeline_tag: {pipeline}"] if pipeline else [])]
    return "\n".join(["---", *lines, "tags:", *(f"- {_json(tag)}" for tag in tags), "---"])


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
