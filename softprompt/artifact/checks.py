"""What an artifact's tensors must be: as its manifest names them, as its layout says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config import parse
from ..errors import ArtifactError, ConfigError
from .files import MAX_JSON_BYTES, MAX_TENSORS, WHOLE_MODEL, one_line
from .manifest import LayoutSpec, Manifest, ShapeSpec, TensorRecord

if TYPE_CHECKING:
    from ..base import Base

_MANIFEST = "manifest.json"


def check_tensors(tensors: dict[str, Tensor], manifest: Manifest, where: str) -> None:
    """Names, shapes and types must be the manifest's.

    Raises:
        ArtifactError: the first thing that differs, with both values.
    """
    if missing := sorted(set(manifest.tensors) - set(tensors)):
        raise ArtifactError(f"{where}: lacks {list_names(missing)}, which {_MANIFEST} names; copy the artifact again")
    if extra := sorted(set(tensors) - set(manifest.tensors)):
        raise ArtifactError(f"{where}: holds {list_names(extra)}, which {_MANIFEST} does not name; it was changed")
    for name, value in sorted(tensors.items()):
        want = manifest.tensors[name]
        if list(value.shape) != want.shape or value.dtype != torch.float32:
            dtype = str(value.dtype).removeprefix("torch.")
            raise ArtifactError(
                f"{where}: tensor {quote(name)} is {dtype} {list(value.shape)}, {_MANIFEST} says {want.dtype} "
                f"{want.shape}; the artifact was changed"
            )


def whole_model(manifest: Manifest) -> bool:
    """Whether all weights of a model are stored, so that the folder is a plain transformers model."""
    return manifest.tensors_file == "model.safetensors"


def numbers(manifest: Manifest) -> int:
    """How many numbers the tensors hold that the manifest names."""
    return sum(math.prod(record.shape) for record in manifest.tensors.values())


def check_counts(manifest: Manifest, where: str) -> None:
    """As many tensors as an artifact has, with as many numbers as are recorded.

    Raises:
        ArtifactError: too many, or another number of them.
    """
    most = MAX_TENSORS * (WHOLE_MODEL if whole_model(manifest) else 1)
    if len(manifest.tensors) > most:
        raise ArtifactError(
            f"{where}: names {len(manifest.tensors):,} tensors, expected at most {most:,}; it is not ours"
        )
    found, stored = numbers(manifest), manifest.parameters["stored"]
    if found != stored:
        raise ArtifactError(
            f"{where}: records {stored:,} stored numbers, its tensors have {found:,}; the artifact was changed"
        )
    if manifest.tensors and manifest.layout.stores == "none":
        raise ArtifactError(f"{where}: its layout stores nothing, but it names tensors; the artifact was changed")


def check_number(tensors: Mapping[str, object], what: str) -> None:
    """Refuse more tensors than an artifact holds, before they are trained.

    Raises:
        ConfigError: with their number.
    """
    # a record of the manifest takes some 80 bytes beside the name
    text = sum(len(name) + 80 for name in tensors)
    if len(tensors) > MAX_TENSORS or text > MAX_JSON_BYTES * 3 // 4:
        raise ConfigError(
            f"{what} would learn {len(tensors):,} tensors, an artifact holds {MAX_TENSORS:,} with short names at most; let it "
            "change fewer modules or layers"
        )


def check_size(file: Path, manifest: Manifest, header: int) -> None:
    """The file of the tensors must have the bytes that their shapes take; asked before any of them is read.

    Args:
        header: bytes that may stand in front of the numbers.

    Raises:
        ArtifactError: fewer or more bytes.
    """
    try:
        size = file.stat().st_size
    except OSError:
        return  # told when it is read
    least = 4 * numbers(manifest)
    if not least <= size <= least + header:
        raise ArtifactError(
            f"{file}: has {size:,} bytes, the shapes in {_MANIFEST} take {least:,} and at most {header:,} in front of them; "
            "the file was changed or is cut short, copy the artifact again"
        )


def check_layout(manifest: Manifest, where: str) -> None:
    """A learned segment lies under the name, and in the shape, that its layout says.

    Raises:
        ArtifactError: it does not.
    """
    shapes = {name: record.shape for name, record in manifest.tensors.items()}
    if (problem := _segment_problem(manifest.layout, shapes, manifest.base.shape, manifest.base.encoder)) is not None:
        raise ArtifactError(f"{where}: {problem}")


def check_savable(layout: Mapping[str, Any], tensors: Mapping[str, Tensor], base: Base, what: str) -> None:
    """Refuse a method's layout that no manifest holds, or that does not fit its tensors, before they are trained.

    Args:
        layout: what `Method.layout` gives.
        tensors: what `Method.export` gives.
        what: the method, for messages.

    Raises:
        ConfigError: names the field of the layout and its values, or the name and shape that the tensor must have.
    """
    spec = parse(LayoutSpec, dict(layout), f"{what}: layout()")
    if spec.stores == "none" and tensors:
        problem: str | None = (
            f"stores is 'none', but export() gives {list_names(sorted(tensors))}; set stores and place"
        )
    else:
        sizes = ShapeSpec.model_validate(base.shape.as_dict())
        encoder = ShapeSpec.model_validate(base.reader.shape.as_dict()) if base.has_decoder else None
        problem = _segment_problem(spec, {name: list(one.shape) for name, one in tensors.items()}, sizes, encoder)
    if problem is not None:
        raise ConfigError(f"{what}: {problem}")


def _segment_problem(
    layout: LayoutSpec, shapes: Mapping[str, list[int]], sizes: ShapeSpec, encoder: ShapeSpec | None
) -> str | None:
    """Why tensors of these shapes are not the segment that a layout says, or None.

    Args:
        sizes: of the base; of a sequence-to-sequence base those of its decoder.
        encoder: of its encoder.
    """
    if layout.stores not in ("embeddings", "kv"):
        return None
    shape = encoder if encoder is not None and layout.place != "infix" else sizes
    key = "infix_kv" if layout.stores == "kv" and layout.place == "infix" else "prompt_embeddings"
    if set(shapes) != {key}:
        given = list_names(sorted(shapes)) or "none"
        return f"layout {layout.stores}/{layout.place} stores the one tensor {key!r}, not {given}"
    want = [layout.length, shape.embedding_size or shape.hidden_size]
    if layout.stores == "kv":
        if not (isinstance(shape.kv_heads, int) and isinstance(shape.head_size, int)):
            return None  # layers of several sizes: the method checks them against the base itself
        want = [shape.layers, 2, shape.kv_heads, layout.length, shape.head_size]
        if key == "prompt_embeddings":
            want = [layout.length, shape.layers * 2 * shape.kv_heads * shape.head_size]
    if shapes[key] != want:
        return f"tensor {key!r} has shape {shapes[key]}, its layout and base give {want}"
    return None


def check_base(manifest: Manifest, base: Base) -> None:
    """Refuse a base or a tokenizer other than that of the training.

    Raises:
        ArtifactError: with both ids and digests.
    """
    made, here = manifest.base, base.identity
    model, tokenizer = here.old if manifest.format_version == 1 else (here.model, here.tokenizer)
    if made.digest != model:
        raise _another_base(made.id, made.digest, base.name, model)
    if made.checkpoint and here.exact and made.checkpoint != here.exact:
        raise _another_base(made.id, made.checkpoint, base.name, here.exact)
    if manifest.format_version > 1:
        # a prompt may start from an artifact on the encoder's side of a base that has two
        shape = made.encoder if made.encoder and not base.has_words else made.shape
        for key in ("layers", "hidden_size", "vocab_size", "embedding_size"):
            says, has = getattr(shape, key), getattr(base.shape, key)
            if says != has:
                raise ArtifactError(
                    f"the manifest says that base {quote(made.id)} has {key} {says}, it has {has}; the artifact was changed"
                )
    if made.tokenizer_digest != tokenizer:
        raise ArtifactError(
            f"the artifact was made with another tokenizer: that of {quote(made.id)} (digest "
            f"{one_line(made.tokenizer_digest, 12)}), not {base.name!r} (digest {tokenizer[:12]}); "
            "use the tokenizer, special tokens and chat template that came with the base"
        )


def _another_base(made: str, its: str, name: str, digest: str) -> ArtifactError:
    return ArtifactError(
        f"the artifact belongs to base {quote(made)} (digest {one_line(its, 12)}), this is {name!r} (digest {digest[:12]}); "
        f"load it on {quote(made)} or train one for {name!r}"
    )


def quote(name: str) -> str:
    """A name from a file that is not trusted, bounded, for a message."""
    return one_line(repr(name), 80)


def list_names(names: list[str]) -> str:
    """The first few of many names."""
    return ", ".join(quote(name) for name in names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def list_shapes(tensors: Mapping[str, TensorRecord]) -> str:
    """Names with their shapes."""
    return one_line(", ".join(f"{name} {record.shape}" for name, record in sorted(tensors.items())) or "none", 300)
