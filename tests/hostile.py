"""Artifacts as a stranger might make them: every value of a manifest replaced by what does not belong there, sealed again."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

CONTROL = "x\x1b]0;title\x07\x1b[2J\nerror: all is well\u202e\x9b"
VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "minus one": -1,
    "zero": 0,
    "one": 1,
    "2^31": 2**31,
    "10^18": 10**18,
    "1e300": 1e300,
    "half": 0.5,
    "empty text": "",
    "control characters": CONTROL,
    "long text": "good " * 20_000,
    "a path": "../../../etc/passwd",
    "an address": "https://evil.example/x",
    "a module": "os.system",
    "empty list": [],
    "100,000 numbers": list(range(100_000)),
    "100,000 texts": [f"t{index}" for index in range(100_000)],
    "empty mapping": {},
    "10,000 keys": {f"k{index}": [f"w{index}"] for index in range(10_000)},
    "deep lists": [[[[[[[[[[0]]]]]]]]]],
    "a template bomb": "{% for a in range(999999) %}{% for b in range(999999) %}{{ text }}{% endfor %}{% endfor %}",
    "a template of attributes": "{{ text.__class__.__mro__[1].__subclasses__() }}",
    "a soft slot of 10^9": "{{ soft(1000000000) }} {{ text }}",
}
TENSORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "zeros": torch.zeros_like,
    "a row more": lambda t: torch.cat([t, t[:1]]),
    "a row less": lambda t: t[:-1] if len(t) > 1 else t[:0],
    "transposed": lambda t: t.t().contiguous() if t.dim() == 2 else t.flatten(),
    "flat": lambda t: t.flatten(),
    "one dimension more": lambda t: t[None],
    "half": lambda t: t.half(),
    "double": lambda t: t.double(),
    "integers": lambda t: t.int(),
    "not a number": lambda t: t * float("nan"),
    "infinity": lambda t: t + float("inf"),
    "1e30": lambda t: t * 0 + 1e30,
    "one number": lambda t: t.flatten()[:1],
}


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values of a manifest, mappings and lists included."""
    if at:
        yield at
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        yield from paths(part, (*at, key))


def changed(manifest: dict[str, Any], at: tuple[Any, ...], change: Callable[[Any, Any], None]) -> dict[str, Any]:
    """A copy in which `change(container, key)` was done at a place."""
    result = copy.deepcopy(manifest)
    node: Any = result
    for key in at[:-1]:
        node = node[key]
    change(node, at[-1])
    return result


def kinds(folder: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Names of all changes of an artifact, and what makes each in a copy of it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for at in paths(manifest):
        if at[0] == "manifest_sha256":
            continue
        where = ".".join(map(str, at))
        for name, value in VALUES.items():
            yield f"{where} = {name}", lambda to, at=at, value=value: seal(to, changed(manifest, at, _put(value)))
        yield f"without {where}", lambda to, at=at: seal(to, changed(manifest, at, _delete))
        yield f"another key beside {where}", lambda to, at=at: seal(to, changed(manifest, at, _add))
    for name, change in TENSORS.items():
        for key in sorted(manifest["tensors"])[:3]:
            yield f"tensor {key}: {name}", lambda to, key=key, change=change: _tensors(to, manifest, {key: change})
        everywhere = dict.fromkeys(manifest["tensors"], change)
        yield f"all tensors: {name}", lambda to, everywhere=everywhere: _tensors(to, manifest, everywhere)


def _put(value: Any) -> Callable[[Any, Any], None]:
    return lambda node, key: node.__setitem__(key, value)


def _delete(node: Any, key: Any) -> None:
    del node[key]


def _add(node: Any, key: Any) -> None:
    if isinstance(node, dict):
        node["megatron_core"] = "stranger.evil"
    else:
        node.append(node[key])


def _tensors(
    folder: Path, manifest: dict[str, Any], changes: dict[str, Callable[[torch.Tensor], torch.Tensor]]
) -> None:
    file = folder / manifest["tensors_file"]
    tensors = load(file.read_bytes())
    tensors |= {key: change(tensors[key]) for key, change in changes.items()}
    file.write_bytes(save(tensors, metadata={"format": "pt"}))
    manifest = copy.deepcopy(manifest)
    manifest["tensors"] = {key: {"shape": list(t.shape), "dtype": "float32"} for key, t in tensors.items()}
    manifest["parameters"]["stored"] = sum(t.numel() for t in tensors.values())
    seal(folder, manifest)


def seal(folder: Path, manifest: Any) -> None:
    """Write a manifest with the digests that its contents have: they are public, so anybody can."""
    if isinstance(manifest.get("tensors_sha256"), str) and isinstance(manifest.get("tensors_file"), str):
        file = folder / "adapter_model.safetensors"
        if file.is_file():
            manifest["tensors_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.pop("manifest_sha256", None)
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    manifest["manifest_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def made(folder: Path, to: Path, change: Callable[[Path], None]) -> Path:
    """A changed copy of an artifact."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    change(to)
    return to


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Bytes with one bit turned, a few bytes changed, something cut out, doubled or put in."""
    kind, at = rng.randrange(5), rng.randrange(max(1, len(data)))
    if kind == 0:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if data else b"\0"
    if kind == 1:
        changed = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    stop = min(len(data), at + rng.randint(1, 40))
    if kind == 2:
        return data[:at] + data[stop:]
    if kind == 3:
        return data[:stop] + data[at:]
    return data[:at] + rng.randbytes(rng.randint(1, 20)) + data[at:]
