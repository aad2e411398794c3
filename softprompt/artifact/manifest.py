"""`manifest.json`: what an artifact is, on which base, made how, and how good.

It has no times, no host and no paths of the machine, so the same seed gives the same file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, field_validator, model_serializer, model_validator
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from ..config import Strict
from ..errors import ArtifactError, SoftpromptError
from ..storage import digest_of
from ..version import __version__
from .files import MAX_JSON_BYTES, MAX_TENSORS, WHOLE_MODEL, decode, one_line, parse_json, read_bytes
from .parsing import parse_content, refuse_newer

FORMAT_VERSION = 2
"""The format that artifacts are written in. Format 1 is still read; newer ones are refused."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}\z")]
LoadsIn = Annotated[str, Field(pattern=r"^(transformers|peft( within the window of [1-9]\d{0,8} tokens)?)\z")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*\z", max_length=80)]  # of the folder itself
Finite = Annotated[float, Field(allow_inf_nan=False)]
PerLayer = Annotated[list[PositiveInt], Field(max_length=2000)]
Sizes = NonNegativeInt | PerLayer  # one number, or one per layer; 0: keys and values are out of reach


class Exact(Strict):
    """No conversions: `"1"`, `1.0` and `true` are not the number 1, and NaN is not null (pydantic's default)."""

    by_hand: ClassVar[bool] = False
    model_config = ConfigDict(
        extra="forbid", strict=True, validate_default=True, validate_assignment=True, ser_json_inf_nan="constants"
    )


class LayoutSpec(Exact):
    """How the learned segment is read back.

    Attributes:
        stores: `embeddings`: `prompt_embeddings` [P, H]. `kv` in front: PEFT's `prompt_embeddings` [P, L·2·G·D]; as
            infix: `infix_kv` [L, 2, G, P, D], keys relative to the cue. `head`: a classifier on the base's features.
            `weights`: adapters, or the base's weights. `other`: tensors that only the method knows. `none`: no segment.
        place: in front of the text, between text and answer, elsewhere, or nowhere.
        length: P; no base reads a million tokens.
    """

    stores: Literal["embeddings", "kv", "head", "weights", "other", "none"]
    place: Literal["front", "infix", "other", "none"]
    length: Annotated[int, Field(ge=0, le=1 << 20)] = 0

    @model_validator(mode="before")
    @classmethod
    def _without_layers(cls, data: Any) -> Any:
        """Early manifests held `layers`: null unless a prefix lay in the upper layers and nowhere else."""
        if not isinstance(data, dict) or "layers" not in data:
            return data
        if data["layers"] is not None:
            raise ValueError("a prefix that was saved without the layers below the ones it learned in; train it again")
        return {key: value for key, value in data.items() if key != "layers"}


class ShapeSpec(Exact):
    """Sizes of the base: L layers, G key/value heads, D head size, H hidden size, V vocabulary; embeddings where not H."""

    layers: PositiveInt
    kv_heads: Sizes
    head_size: Sizes
    hidden_size: PositiveInt
    vocab_size: PositiveInt
    embedding_size: PositiveInt | None = None


class BaseRecord(Exact):
    """Which base the artifact belongs to: its id is for people, its digests decide.

    Attributes:
        digest: of all its weights as bf16, so that it is the same however it is held; of format 1, of a sample of them.
        checkpoint: of every byte of the files that it was read from; None where it was made in memory.
        dtype: how it was held in training, e.g. `fp32`.
        encoder: sizes of the encoder beside the decoder, whose are those of `shape`; in the file only where there are two.
    """

    id: str
    digest: str
    dtype: str
    tokenizer_digest: str
    checkpoint: Sha256 | None = None
    shape: ShapeSpec
    encoder: ShapeSpec | None = None

    @model_serializer(mode="wrap")
    def _without_empty(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Manifests of other bases stay as they always were, and so do their digests."""
        return {key: value for key, value in serialize(self).items() if key not in ("encoder", "checkpoint") or value}


class TensorRecord(Exact):
    """Shape and type of a stored tensor."""

    shape: list[PositiveInt] = Field(max_length=8)
    dtype: Literal["float32"] = "float32"


class MetricRecord(Exact):
    """A metric over so many rows with its 95 % interval [low, high].

    Attributes:
        signature: how it was computed, as sacrebleu says it; in the file only where there is one.
    """

    metric: str
    value: Finite
    interval: list[Finite] = Field(min_length=2, max_length=2)
    rows: NonNegativeInt
    signature: str = ""

    @model_serializer(mode="wrap")
    def _without_empty(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Manifests of metrics without a signature stay as they always were, and so do their digests."""
        return {key: value for key, value in serialize(self).items() if key != "signature" or value}


class Manifest(Exact):
    """Everything about an artifact but its numbers.

    Attributes:
        softprompt: version that wrote it.
        kind: of base (see `base/families.py`); earlier ones said `causal` of all.
        method: name and settings, as `make_method` takes them.
        task: the whole task (template, verbalizer, demonstrations), as `Task.load` takes it; None where there is none.
        tensors_file: where the tensors are: `adapter_model.safetensors`, or in a folder that is also a plain transformers model
            `model.safetensors`.
        tensors, tensors_sha256: which tensors it must hold; `save` fills both.
        files: sha256 of the other files that let plain PEFT (`adapter_config.json`) or transformers (`config.json`, tokenizer)
            load the folder; `save` fills it.
        loads_in: what else loads the folder: `transformers`, `peft` (a prefix only in rows no longer than a sliding window of
            its base, itself included: `peft within the window of N tokens`), or nothing.
        metrics: by split.
        training: resolved settings, seed, best step.
        data: digest of the rows and their number by split.
        versions: of the packages that made it.
        parameters: `trained` and `stored` numbers.
        manifest_sha256: of all the rest, as canonical JSON; `to_json` fills it in. Format 1 had none.
    """

    format_version: Literal[1, 2] = 2
    softprompt: str = __version__
    kind: Literal["causal", "masked", "encoder", "seq2seq"] = "causal"
    method: dict[str, Any]
    layout: LayoutSpec
    task: dict[str, Any] | None = None
    base: BaseRecord
    tensors_file: Literal["adapter_model.safetensors", "model.safetensors"] = "adapter_model.safetensors"
    tensors: dict[str, TensorRecord] = Field(default_factory=dict, max_length=MAX_TENSORS * WHOLE_MODEL)
    tensors_sha256: Sha256 | None = None
    files: dict[FileName, Sha256] = Field(default_factory=dict)
    loads_in: LoadsIn | None = None
    metrics: dict[str, MetricRecord] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, Any] | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    parameters: dict[str, NonNegativeInt]
    manifest_sha256: Sha256 | None = None

    @model_serializer(mode="wrap")
    def _without_empty(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Manifests of format 1 stay as they were."""
        return {key: value for key, value in serialize(self).items() if key != "manifest_sha256" or value}

    @field_validator("method")
    @classmethod
    def _has_name(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get("name"), str):
            raise ValueError("expected a mapping with a text 'name'")
        return value

    @field_validator("task")
    @classmethod
    def _has_name_and_type(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and not (isinstance(value.get("name"), str) and isinstance(value.get("type"), str)):
            raise ValueError("expected a mapping with text 'name' and 'type'")
        return value

    @field_validator("parameters")
    @classmethod
    def _has_both(cls, value: dict[str, int]) -> dict[str, int]:
        if set(value) != {"trained", "stored"}:
            raise ValueError("expected exactly the keys 'trained' and 'stored'")
        return value

    @staticmethod
    def read(path: Path) -> Manifest:
        """Read and check a manifest file.

        Raises:
            ArtifactError: unreadable, too large, or see `from_json`.
        """
        limit = MAX_JSON_BYTES * (WHOLE_MODEL if os.path.lexists(path.parent / "model.safetensors") else 1)
        return Manifest.from_json(decode(read_bytes(path.parent, path.name, limit), path), str(path))

    @staticmethod
    def from_json(text: str, where: str) -> Manifest:
        """Check the text of a manifest.

        Args:
            where: stands in front of every problem, e.g. the file's path.

        Raises:
            ArtifactError: not JSON, a newer format (reported before anything else), fields that do not fit, or changed
                since it was written.
        """
        data = parse_json(text, where)
        version = data.get("format_version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ArtifactError(
                f"{where}: format_version is {one_line(repr(version), 60)}, expected {FORMAT_VERSION}; "
                "this is no softprompt artifact"
            )
        refuse_newer("artifact", version, FORMAT_VERSION, where)
        manifest = parse_content(Manifest, data, where)
        _check_digest(manifest, data, where)
        return manifest

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, as in the file."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        """The text of the file: indented two levels deep, so that it can be read and stays small.

        Raises:
            ValueError, TypeError: a setting that JSON cannot hold.
        """
        data = self.as_dict()
        data.pop("manifest_sha256", None)
        if self.format_version > 1:
            data["manifest_sha256"] = digest_of(data)
        return json_text(data)


def _check_digest(manifest: Manifest, data: dict[str, Any], where: str) -> None:
    """Refuse a manifest that is not as it was written: a bit that flipped, or an editor.

    Raises:
        ArtifactError: with what in it does not fit, if that can be said.
    """
    written = manifest.manifest_sha256
    if written is None and manifest.format_version == 1:
        return
    found = digest_of({key: value for key, value in data.items() if key != "manifest_sha256"})
    if found != written:
        says = f"it says {written[:16]}…" if written else "it says none"
        raise ArtifactError(
            f"{where}: was changed after it was written (its sha256 is {found[:16]}…, {says}){_what_is_odd(manifest)}; "
            "copy the artifact again"
        )


def _what_is_odd(manifest: Manifest) -> str:
    """What of a changed manifest gives the change away, for the message."""
    from ..methods import make_method  # methods read artifacts; only this message looks back

    try:
        make_method(manifest.method)
    except SoftpromptError as error:
        return f": {one_line(str(error), 300)}"
    return ""


def json_text(data: dict[str, Any]) -> str:
    """A mapping as JSON, indented two levels deep.

    Raises:
        ValueError, TypeError: a value that JSON cannot hold.
    """
    lines = [f"{_dump(key)}: {_block(value)}" for key, value in data.items()]
    return "{\n  " + ",\n  ".join(lines) + "\n}\n"


def _block(value: Any) -> str:
    """A mapping with one key a line; anything else on one line."""
    if not isinstance(value, dict) or not value:
        return _dump(value)
    return "{\n    " + ",\n    ".join(f"{_dump(key)}: {_dump(part)}" for key, part in value.items()) + "\n  }"


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
