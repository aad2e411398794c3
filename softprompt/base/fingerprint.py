"""What makes a base *that* base: digests of its configuration, of its weights, and of its tokenizer.

A base has two digests of its weights. `model_digest` covers every weight as bf16, so one checkpoint held as fp32, as bf16 or in
8 bits is one base, in memory or from a folder. `Checkpoint.exact` covers every byte of a checkpoint's files, where there are
some. Both are kept beside the files' size and times, so that a second load does not read the weights again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..errors import BaseModelError, SoftpromptError
from ..storage import cached_file, canonical_json, digest_of, write_json

SAMPLES = 64  # per tensor, in the digests of format 1
_NOT_IDENTITY = {"transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache", "quantization_config"}
_BLOCK = 1 << 20
KEPT_FROM = 20_000_000  # bytes of files; the digest of fewer is there as soon as it is looked up


@dataclass(frozen=True)
class Checkpoint:
    """What is known of the files that a model was read from.

    Attributes:
        weights: see `weights_digest`, of the checkpoint in its own type.
        exact: hex SHA-256 of the tensors' names, types, shapes and bytes, however they lie in files; None: not of safetensors.
        read: the model in the checkpoint's own type, read again; None where the model's own weights are it.
    """

    weights: str
    exact: str | None
    read: Callable[[], Any] | None = None


class Identity:
    """Which base this is.

    Attributes:
        name: for people: a bundled name, a hub id, or a folder's own name; never a path, which is of one machine.
        hub_id: the name where it leads to the base from any machine, else None.
        model, exact: see the module; `exact` is None of a model that was made in memory.
        tokenizer: see `tokenizer_digest`.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, checkpoint: Checkpoint | None = None) -> None:
        self.name = public_name(name)
        self.hub_id = None if is_folder(name) else name
        self.model = model_digest(model, checkpoint.weights if checkpoint else None)
        self.exact = checkpoint.exact if checkpoint else None
        self.tokenizer = tokenizer_digest(tokenizer)
        self._sources = model, tokenizer, checkpoint

    @cached_property
    def old(self) -> tuple[str, str]:
        """The digests of model and tokenizer that manifests of format 1 hold, made when one is loaded."""
        model, tokenizer, checkpoint = self._sources
        read = checkpoint.read if checkpoint else None
        return sampled_digest(read() if read else model), old_tokenizer_digest(tokenizer)


def is_folder(name: str) -> bool:
    """Whether a base of this name is a folder (or a file) of this machine; bundled names come first."""
    path = Path(name).expanduser()
    return path.exists() or path.is_absolute() or name.startswith(".") or name.count("/") > 1


def public_name(name: str) -> str:
    """See `Identity.name`."""
    return Path(name).expanduser().resolve().name or "base" if is_folder(name) else name


def model_digest(model: Any, weights: str | None = None) -> str:
    """Hex SHA-256 of the config (without what says nothing of the weights) and of all weights.

    Args:
        weights: their digest, where the model does not hold them as the checkpoint does.
    """
    config = _config(model, "architectures")  # which a model that was never saved does not know
    return hashlib.sha256(f"{config}{weights or weights_digest(model)}".encode()).hexdigest()


def weights_digest(model: Any) -> str:
    """Hex SHA-256 of all parameters, rounded to bf16.

    Raises:
        BaseModelError: a weight that is no number, which some text would meet sooner or later; matrices of zeros, as files have
            that were not fetched to their end.
    """
    digest = hashlib.sha256()
    matrices, zeros = 0, []
    for name, weight in _parameters(model):
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        rounded = weight.detach().flatten().to(torch.bfloat16).cpu().contiguous()
        # a sum is many times faster, and shows every nan and inf
        total = rounded.sum(dtype=torch.float32)
        if not total.isfinite() and not rounded.isfinite().all():
            raise BaseModelError(
                f"the base's weight {name} holds numbers that are none (nan or inf); copy the base again"
            )
        if weight.dim() > 1:
            matrices += 1
            zeros += [name] if total == 0 and not rounded.any() else []
        digest.update(rounded.view(torch.int16).numpy().data)
    if len(zeros) * 4 > matrices:  # a few may be zero as they begin
        raise BaseModelError(
            f"of the base's {matrices} matrices {len(zeros)} are all zeros, {zeros[0]} among them; copy the base again"
        )
    return digest.hexdigest()


def sampled_digest(model: Any) -> str:
    """The digest that manifests of format 1 hold: the config, and `SAMPLES` evenly spread weights of each tensor as bf16."""
    digest = hashlib.sha256(_config(model).encode())
    for name, weight in _parameters(model):
        flat = weight.detach().flatten()
        step = max(1, flat.numel() // SAMPLES)
        sample = flat[::step][:SAMPLES].to(torch.bfloat16).cpu().contiguous()
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _config(model: Any, *without: str) -> str:
    left_out = _NOT_IDENTITY.union(without)
    config = {k: v for k, v in model.config.to_dict().items() if k not in left_out and not k.startswith("_")}
    return canonical_json(json.loads(json.dumps(config, default=str)))


def _parameters(model: Any) -> list[tuple[str, torch.Tensor]]:
    """By name; without the pooler of encoders, which are run without it."""
    return [(name, weight) for name, weight in sorted(model.named_parameters()) if not name.startswith("pooler.")]


def tokenizer_digest(tokenizer: Any) -> str:
    """Hex SHA-256 of everything that decides which ids a text becomes and where an answer ends.

    That is the tokenizer with its added tokens and their flags, the chat template, and the special tokens with their ids.
    """
    special = {
        name: [str(token), tokenizer.convert_tokens_to_ids(str(token))]
        for name, token in tokenizer.special_tokens_map.items()
        if not isinstance(token, list)
    }
    added = {str(index): _flags(token) for index, token in tokenizer.added_tokens_decoder.items()}
    return digest_of([old_tokenizer_digest(tokenizer), special, added])


def _flags(token: Any) -> list[Any]:
    return [
        str(token),
        *(getattr(token, flag, None) for flag in ("lstrip", "rstrip", "single_word", "normalized", "special")),
    ]


def old_tokenizer_digest(tokenizer: Any) -> str:
    """The digest that manifests of format 1 hold: which ids a text becomes, and the chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        state = json.loads(backend.to_str())
        state.pop("truncation", None)  # settings of the last call, not of the tokenizer
        state.pop("padding", None)
    else:
        state = dict(sorted(tokenizer.get_vocab().items()))
    template = getattr(tokenizer, "chat_template", None)
    return hashlib.sha256(canonical_json([state, template]).encode()).hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, in the order in which transformers looks for them; none if it has none."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return []
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return []
    return [folder / name for name in sorted(named) if (folder / name).is_file()]


def exact_digest(files: Sequence[Path]) -> str:
    """Hex SHA-256 of all tensors of safetensors files, by name: type, shape and bytes.

    Raises:
        BaseModelError: a file that is none, or is cut short.
    """
    tensors = sorted((name, file, entry) for file in files for name, entry in header(file).items())
    digest = hashlib.sha256()
    for name, file, (kind, shape, begin, end) in tensors:
        digest.update(f"{name}\0{kind}{shape}".encode())
        with file.open("rb") as source:
            source.seek(begin)
            left = end - begin
            while left > 0 and (block := source.read(min(_BLOCK, left))):
                digest.update(block)
                left -= len(block)
        if left:
            raise BaseModelError(f"{file}: is cut short at tensor {name!r}; copy the base again")
    return digest.hexdigest()


def header(file: Path) -> dict[str, tuple[str, list[int], int, int]]:
    """Type, shape and place in the file of each tensor."""
    try:
        with file.open("rb") as source:
            size = int.from_bytes(source.read(8), "little")
            if size > 100_000_000:  # as safetensors itself bounds it
                raise ValueError("its header is too long")
            found = json.loads(source.read(size))
        found.pop("__metadata__", None)
        return {
            name: (entry["dtype"], entry["shape"], *(8 + size + place for place in entry["data_offsets"]))
            for name, entry in found.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseModelError(f"{file}: not a whole safetensors file ({error}); copy the base again") from None


def kept_exact(files: Sequence[Path]) -> str:
    """`exact_digest`, read from the cache where these files have not changed since."""
    return kept(files, "exact", lambda: exact_digest(files))


def kept_weights(files: Sequence[Path], kind: str, compute: Callable[[], str]) -> str:
    """The `weights_digest` of these files read as a model of this kind, from the cache where they have not changed since."""
    return kept(files, f"sound weights of {kind}", compute) if files else compute()


def kept(files: Sequence[Path], what: str, compute: Callable[[], str]) -> str:
    """A digest of files, from the cache where they have not changed since it was made."""
    identity, size = [], 0
    for file in files:
        found = file.stat()  # the time of the change of an inode cannot be set back
        size += found.st_size
        identity.append([str(file.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino])
    if size < KEPT_FROM:
        return compute()
    place = cached_file("digests", f"{digest_of([identity, what])}.json")
    if place is None:  # a user without a home
        return compute()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(place.read_text(encoding="utf-8"))["sha256"]
        if isinstance(kept, str) and len(kept) == 64:
            return kept
    value = compute()
    with contextlib.suppress(SoftpromptError, OSError):  # a cache that cannot be written is no reason to stop
        write_json(place, {"sha256": value})
    return value
