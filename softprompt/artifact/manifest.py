"""`manifest.json`, format version 1: everything about an artifact but its numbers.

It holds no time, duration or host name: the same seed gives the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..config import Strict, parse
from ..errors import ArtifactError, ConfigError

FORMAT_VERSION = 1
_LARGEST = 16_000_000  # bytes; a manifest is some kilobytes, demonstrations included


class LayoutSpec(Strict):
    """What the learned segment is: embeddings [P, H], K/V [L, 2, G, P, D], a head, or nothing; where it stands; P."""

    stores: Literal["embeddings", "kv", "head", "none"]
    place: Literal["front", "infix", "none"]
    length: int = Field(ge=0)


class ShapeSpec(Strict):
    """Sizes of the base: L layers, G key/value heads, D head size, H hidden size, V vocabulary."""

    layers: int
    kv_heads: int
    head_size: int
    hidden_size: int
    vocab_size: int


class BaseRecord(Strict):
    """Which base the artifact belongs to: its id is for people, its digests decide."""

    id: str
    digest: str
    dtype: str
    tokenizer_digest: str
    shape: ShapeSpec


class TensorRecord(Strict):
    """Shape and type of a stored tensor."""

    shape: list[int]
    dtype: Literal["float32"] = "float32"


class MetricRecord(Strict):
    """A metric with its 95 % interval over so many rows."""

    metric: str
    value: float
    interval: tuple[float, float]
    rows: int


class Manifest(Strict):
    """Everything about an artifact but its numbers.

    Attributes:
        method: name and settings, as `make_method` takes them.
        task: the whole task (template, verbalizer, demonstrations), as `Task.load` takes it.
        tensors_sha256: of `adapter_model.safetensors`; None when nothing is stored.
        parameters: `trained` and `stored` numbers.
    """

    format_version: int = FORMAT_VERSION
    softprompt: str
    kind: Literal["causal"] = "causal"
    method: dict[str, Any]
    layout: LayoutSpec
    task: dict[str, Any] | None
    base: BaseRecord
    tensors: dict[str, TensorRecord]
    tensors_sha256: str | None = None
    metrics: dict[str, MetricRecord] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, Any] | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    parameters: dict[str, int] = Field(default_factory=dict)

    @staticmethod
    def read(path: Path) -> Manifest:
        """Read and check a manifest file.

        Raises:
            ArtifactError: too large, not JSON, of a newer format, or with keys or values that this format does not know.
        """
        if path.stat().st_size > _LARGEST:
            raise ArtifactError(f"{path}: {path.stat().st_size} bytes are too many for a manifest")
        try:
            data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        except (UnicodeDecodeError, ValueError, RecursionError) as error:
            raise ArtifactError(f"{path}: not a manifest ({error})") from None
        if not isinstance(data, dict):
            raise ArtifactError(f"{path}: not a manifest (expected an object, got {type(data).__name__})")
        version = data.get("format_version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ArtifactError(f"{path}: format_version is {version!r}, expected {FORMAT_VERSION}")
        if version > FORMAT_VERSION:
            raise ArtifactError(
                f"{path}: the artifact has format version {version}, this softprompt reads up to {FORMAT_VERSION}; update it"
            )
        try:
            return parse(Manifest, data, str(path))
        except ConfigError as error:
            raise ArtifactError(str(error)) from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
