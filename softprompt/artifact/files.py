"""Reading files that a stranger may have made: bounded JSON and tensors, never code.

Everything here takes bytes that are not trusted and gives plain values or one clear line.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from ..errors import ArtifactError, visible

T = TypeVar("T")

MAX_JSON_BYTES = 1_000_000  # 4,096 tensors of some 100 bytes each, a task and demonstrations
MAX_HEADER_BYTES = 1_000_000
MAX_FILE_BYTES = 100_000_000  # of a file beside the tensors; the largest is a tokenizer
MAX_TENSORS = 4_096  # a LoRA on a large base has about 1,000
WHOLE_MODEL = 4  # times as much of all three, where all weights of a model are stored
MAX_LISTS = 60_000  # and mappings of a JSON file; our largest has two for each of 16,384 tensors
MAX_DEPTH = 64  # our own files go 8 deep; Python's recursion limit is 1,000
_UNREADABLE = (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError)


def one_line(text: str, limit: int = 600) -> str:
    """Text as one bounded line without control characters, so that a hostile file cannot write to the terminal."""
    shown = visible(text)
    return shown if len(shown) <= limit else f"{shown[:limit]} …"


def read_bytes(folder: Path, name: str, limit: int, max_header: int | None = None) -> bytes:
    """The bytes of a regular file that lies in `folder` itself.

    Args:
        limit: largest size in bytes.
        max_header: of a safetensors file, the largest size of its header, which is looked at before the rest is read.

    Raises:
        ArtifactError: missing, not a regular file, a link out of the folder, too large, or unreadable.
    """
    path = folder / name
    try:
        # A link could make us read any file of this user; the hub's cache is made of such links
        if os.path.commonpath([os.path.realpath(path), os.path.realpath(folder)]) != os.path.realpath(folder):
            raise ArtifactError(
                f"{path}: is a link to {os.path.realpath(path)}, outside the folder; copy the folder with `cp -rL`"
            )
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ArtifactError(f"{path}: is not a regular file; copy the artifact again")
        if found.st_size > limit:
            raise ArtifactError(f"{path}: has {found.st_size:,} bytes, expected at most {limit:,}; it is not ours")
        with path.open("rb") as file:
            if max_header is not None:
                check_header(file.read(8), found.st_size, str(path), max_header)
                file.seek(0)
            return file.read(min(limit, found.st_size))  # `read(limit)` would ask for all of it at once
    except MemoryError:
        raise ArtifactError(f"{path}: has {found.st_size:,} bytes, more than the memory holds") from None
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; copy the artifact again, with all its files") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ArtifactError(f"{path}: cannot be read ({one_line(reason)}); check its permissions") from None


def parse_json(text: str, where: str) -> dict[str, Any]:
    """A JSON object of finite numbers, unique keys, real text and bounded depth.

    Python's own reader takes NaN, 1e999, repeated keys and lone surrogates; other readers do not, so two programs
    would see two different files under one digest.

    Raises:
        ArtifactError: what is wrong, after `where`.
    """
    if (lists := text.count("[") + text.count("{")) > MAX_LISTS:
        raise ArtifactError(
            f"{where}: holds {lists:,} lists and mappings, expected at most {MAX_LISTS:,}; it is not ours"
        )
    try:
        data = json.loads(
            text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_unique, parse_int=_bounded_int
        )
    except RecursionError:
        raise ArtifactError(f"{where}: nested deeper than {MAX_DEPTH} levels; it is not ours") from None
    except ValueError as error:  # includes json.JSONDecodeError
        raise ArtifactError(f"{where}: not valid JSON ({one_line(str(error), 200)}); copy the file again") from None
    if not isinstance(data, dict):
        raise ArtifactError(f"{where}: expected a JSON object, got {type(data).__name__}; copy the file again")
    _check_depth_and_text(data, where)
    return data


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read and parse a JSON file of the folder.

    Raises:
        ArtifactError: see `read_bytes` and `parse_json`.
    """
    return parse_json(decode(read_bytes(folder, name, MAX_JSON_BYTES), folder / name), str(folder / name))


def decode(data: bytes, path: Path) -> str:
    """UTF-8 text.

    Raises:
        ArtifactError: other bytes.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ArtifactError(f"{path}: not valid UTF-8; copy the file again") from None


def parse_tensors(data: bytes, where: str, max_header: int = MAX_HEADER_BYTES) -> dict[str, Tensor]:
    """Tensors of a safetensors file, on the CPU in the dtype of the file.

    Raises:
        ArtifactError: truncated, a header beyond `MAX_HEADER_BYTES`, or not safetensors at all (pickled weights are never
            opened).
    """
    check_header(data[:8], len(data), where, max_header)
    try:
        return load_safetensors(data)
    except _UNREADABLE as error:
        reason = one_line(str(error), 120)
        raise ArtifactError(
            f"{where}: not a whole safetensors file ({len(data):,} bytes; {reason}); copy it again"
        ) from None


def check_header(begin: bytes, size: int, where: str, max_header: int = MAX_HEADER_BYTES) -> None:
    """Refuse a safetensors file by its first eight bytes, which say how long its header is.

    Args:
        size: of the whole file, in bytes.

    Raises:
        ArtifactError: no header, or one that is too long for the file or for us.
    """
    header, most = int.from_bytes(begin, "little"), min(max_header, max(0, size - 8))
    if not 2 <= header <= most:
        raise ArtifactError(
            f"{where}: not a whole safetensors file (its header has {header:,} bytes, expected 2 to {most:,}); copy it again"
        )


def check_finite(tensors: dict[str, Tensor], where: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        ArtifactError: with the tensor and how many of its numbers are bad.
    """
    for name, value in sorted(tensors.items()):
        bad = value.numel() - int(torch.isfinite(value).sum())
        if bad:
            raise ArtifactError(
                f"{where}: tensor {one_line(repr(name), 80)} has {bad} NaN or infinite of {value.numel():,} numbers; "
                "train again with a lower learning rate"
            )


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number {text[:20]} is out of range")
    return value


def _bounded_int(text: str) -> int:
    # Seeds are 64 bits wide; longer integers crash the readers of other languages
    if len(text) > 20:
        raise ValueError(f"integer {text[:20]}… has {len(text)} digits")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice[:40]!r} twice")
    return result


def _check_depth_and_text(data: Any, where: str) -> None:
    """Iterative on purpose: what it guards against is depth."""
    waiting: list[tuple[Any, int]] = [(data, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ArtifactError(f"{where}: nested deeper than {MAX_DEPTH} levels; it is not ours")
        if isinstance(value, str):
            if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
                raise ArtifactError(f"{where}: holds text that is not Unicode (a lone surrogate); copy it again")
        elif isinstance(value, dict):
            waiting.extend((part, depth + 1) for pair in value.items() for part in pair)
        elif isinstance(value, list):
            waiting.extend((part, depth + 1) for part in value)


def steadily(path: Path, read: Callable[[], T]) -> T:
    """Read a folder that another process may replace meanwhile.

    Raises:
        ArtifactError: of a read through which the folder stayed the same.
    """
    for _ in range(20):
        before = _identity(path)
        try:
            return read()
        except ArtifactError:
            # Another process saved over it between two reads: what we compared were two artifacts
            if _identity(path) == before:
                raise
    raise ArtifactError(f"{path}: is being written over and over; load it when the other process is done")


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Changes whenever the folder is replaced (the number of an inode alone may be used again at once)."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns
