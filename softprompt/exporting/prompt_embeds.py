"""Format `prompt-embeds`: learned embeddings, and a row's whole prompt as a request of vLLM's Completions API.

vLLM reads `prompt_embeds` as base64 of a tensor [tokens, hidden size] that `torch.save` wrote, by
`torch.load(weights_only=True)`. It takes no safetensors there.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..artifact import Artifact
from ..base import Base
from ..data import refuse
from ..engine import Past
from ..engine.rows import Piece
from ..errors import ArtifactError, ConfigError
from ..prepared import bind, restored
from ..storage import write_json
from ..surroundings import plain_torch
from ..tasks import Task
from ..values import plain_row
from .format import BASE, FOLDER, Format, Written

FILE, REQUEST = "prompt.safetensors", "request.json"


class PromptEmbeds(Format):
    """Each learned segment by its slot's name, [P, H]: `prompt`, or `soft0`, `soft1` … of a template's soft slots."""

    title = "vLLM's prompt_embeds"
    takes_row = True

    @classmethod
    def lacking(cls, held: Artifact) -> str | None:
        """Only embeddings stand in a row of embeddings."""
        if held.manifest.layout.stores != "embeddings":
            return f"what method {held.manifest.method['name']!r} has learned here are no embeddings"
        if held.manifest.kind != "causal":
            return f"its base is of kind {held.manifest.kind!r}, and vLLM takes embeddings for causal ones"
        return None if held.manifest.task else "it names no task, so no row can become a prompt"

    @classmethod
    def write(
        cls, held: Artifact, base: Base | None, folder: Path, name: str, row: Mapping[str, Any] | None
    ) -> Written:
        """Write the learned embeddings, and of a row its request.

        Raises:
            ConfigError: see `request_for`.
            DataError: the row does not fit the task.
        """
        assert base is not None
        _check_width(base)
        with torch.no_grad():
            segments = restored(held, base).learned().segments
        stored = {name: value.detach().to("cpu", base.dtype).contiguous() for name, value in segments.items()}
        record, dtype = held.manifest.base, base.label_of_dtype
        save_file(stored, folder / FILE, {"base": record.id, "base_digest": record.digest, "dtype": dtype})
        shapes = ", ".join(f"`{name}` {list(value.shape)}" for name, value in stored.items())
        what = f"`{FILE}` holds the learned embeddings: {shapes}, in {dtype}."
        if row is None:
            return Written(what, _CODE_WITHOUT, notes=_NOTES)
        write_json(folder / REQUEST, request_for(held, base, row))
        return Written(f"{what} `{REQUEST}` is the request for one row.", _CODE_WITH, notes=_NOTES)


@plain_torch()
def request_for(artifact: Artifact, base: Base, row: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a request to vLLM's `/v1/completions` for one row.

    Args:
        artifact: of `soft`, `p_tuning`, or `infix` with `form: embeddings`.
        base: the artifact's own; vLLM must run the same.
        row: the fields that the task reads.

    Returns:
        `model`, `prompt_embeds` (the whole prompt, learned embeddings among those of its tokens), `max_tokens` (as many
        as the task's longest answer has) and `temperature` 0.

    Raises:
        ArtifactError: it belongs to another base, names no task, or holds no embeddings.
        ConfigError: the base's embeddings are not as wide as its hidden states, which vLLM refuses.
        DataError: a field of the row is missing or of another type.

    Example:
        >>> import softprompt as sp
        >>> body = request_for(sp.load("runs/soft"), sp.Base.load("smollm2"), {"text": "A quiet triumph."})
        >>> sorted(body)
        ['max_tokens', 'model', 'prompt_embeds', 'temperature']
    """
    if (why := PromptEmbeds.lacking(artifact)) is not None:
        raise ArtifactError(f"{artifact.path or 'the artifact'}: {why}, so vLLM cannot be given them")
    _check_width(base)
    embeddings, longest = _prompt(artifact, base, row)
    buffer = io.BytesIO()
    torch.save(embeddings, buffer)
    return {
        "model": artifact.manifest.base.id,
        "prompt_embeds": base64.b64encode(buffer.getvalue()).decode(),
        "max_tokens": longest,
        "temperature": 0,
    }


@torch.no_grad()
def _prompt(held: Artifact, base: Base, row: Mapping[str, Any]) -> tuple[Tensor, int]:
    """A row's whole prompt [tokens, H] in the base's type, and how many tokens its answer may have."""
    assert held.manifest.task is not None
    task = Task.of_artifact(held.manifest.task, held.manifest.format_version)
    prompt = bind(base, task, restored(held, base, task))
    values = plain_row(row)
    refuse([("the row", task.check_input(values))])
    example = prompt.form.encode(values)
    segments = prompt.method.learned().segments
    slots = prompt.method.segments(prompt.bound.slots, len(prompt.bound.cue))
    pieces = prompt.engine.pieces.of(slots, segments, example)
    embedded = [_embedded(piece, base).to(base.dtype) for piece in pieces]
    longest = max([1, *map(len, example.candidates)])
    return torch.cat(embedded).cpu().contiguous(), max(longest, getattr(task, "longest_answer", 0))


def _embedded(piece: Piece, base: Base) -> Tensor:
    """Ids [n], or embeddings [n, H], as embeddings."""
    assert not isinstance(piece, Past)  # of keys and values `lacking` speaks
    if isinstance(piece, Tensor):
        return piece
    return base.embed(torch.tensor(piece, dtype=torch.long, device=base.device))


def _check_width(base: Base) -> None:
    """
    Raises:
        ConfigError: see `request_for`.
    """
    if base.shape.embedded != base.shape.hidden_size:
        raise ConfigError(
            f"base {base.name!r} has embeddings of size {base.shape.embedded} and states of size "
            f"{base.shape.hidden_size}, and vLLM takes only prompt_embeds of the states' size; serve the artifact itself"
        )


_CODE_WITHOUT = f"""\
import softprompt as sp
from softprompt.exporting import request_for

base = sp.Base.load("{BASE}")
request = request_for(sp.load("path/to/the/artifact"), base, {{"text": "…"}})  # the fields that the task reads
# then POST it as JSON to http://localhost:8000/v1/completions"""

_CODE_WITH = f"""\
import json
from urllib.request import Request, urlopen

body = open("{FOLDER}/{REQUEST}", "rb").read()
request = Request("http://localhost:8000/v1/completions", body, {{"Content-Type": "application/json"}})
# then json.load(urlopen(request))["choices"][0]["text"]"""

_NOTES = (
    "Start the server with `vllm serve BASE --enable-prompt-embeds`. `model` in a request is the name that it serves.",
    "vLLM writes the answer token by token; softprompt compares the labels' words with each other.",
)
