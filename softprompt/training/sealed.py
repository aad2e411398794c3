"""A run's state as one safetensors file, sealed: a SHA-256 over all of it says whether it is what was written.

The header's metadata holds the state as JSON, in which a tensor stands as `{"tensor": k}`; nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .state import State

FORMAT = "softprompt checkpoint 2"
_RENAMED = {"looks": "eval_history"}  # parts of a state by the names that earlier versions wrote
_PICKLED = b"PK\x03\x04"  # how files of torch.save begin


class DamagedError(Exception):
    """The file is not what was written."""


class PickledError(Exception):
    """The file is of an earlier version, which wrote pickles."""


def write_state(path: Path, run: str, state: State) -> None:
    """Write the state of a run (its digest) into a file."""
    tensors: dict[str, Tensor] = {}
    names = [item.name for item in fields(state) if item.name != "evaluations"]  # they are made again
    plain = _taken_apart({name: getattr(state, name) for name in names}, tensors, {})
    told = json.dumps({"run": run, "state": plain})
    tensors = _apart(tensors)
    about = {"format": FORMAT, "step": str(state.step), "state": told, "sha256": _seal(told, tensors)}
    save_file(tensors, path, about)


def read_state(path: Path) -> tuple[str, State]:
    """The run's digest and its state.

    Raises:
        DamagedError: one bit of it is another one than was written, or it cannot be read.
        PickledError: an earlier version wrote it.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) == _PICKLED:
                raise PickledError
        with safe_open(path, "pt") as held:
            told = held.metadata() or {}
            tensors = {name: held.get_tensor(name).clone() for name in held.keys()}  # noqa: SIM118 - not a dict
        if told.get("sha256") != _seal(told["state"], tensors):
            raise DamagedError("its sha256 is another one")
        content = json.loads(told["state"])
        state = _put_together(content["state"], tensors)
        return content["run"], State(**{_RENAMED.get(name, name): value for name, value in state.items()})
    except PermissionError:
        raise
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise DamagedError(type(error).__name__) from None


def step_of(path: Path) -> int | None:
    """The step of a checkpoint, as its header says it, without a look at the rest; None where there is none to be read."""
    try:
        with safe_open(path, "pt") as held:
            return int((held.metadata() or {})["step"])
    except PermissionError:
        raise
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _seal(told: str, tensors: Mapping[str, Tensor]) -> str:
    """Over the JSON, and every tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256(told.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _taken_apart(value: Any, tensors: dict[str, Tensor], known: dict[int, str]) -> Any:
    """JSON of a value; its tensors go into `tensors`, each once (`known`: names by the identity of the object)."""
    if isinstance(value, Tensor):
        if id(value) not in known:
            known[id(value)] = str(len(known))
            tensors[known[id(value)]] = value.detach().cpu().contiguous()
        return {"tensor": known[id(value)]}
    if isinstance(value, dict):
        return {"items": [[key, _taken_apart(item, tensors, known)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_taken_apart(item, tensors, known) for item in value]}
    return [_taken_apart(item, tensors, known) for item in value] if isinstance(value, list) else value


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As safetensors wants them: no two names for one memory."""
    seen: set[int] = set()
    found = {}
    for name, value in tensors.items():
        place = value.untyped_storage().data_ptr()
        found[name] = value.clone() if place in seen else value
        seen.add(place)
    return found


def _put_together(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_put_together(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "tuple":
        return tuple(_put_together(item, tensors) for item in held)
    return {key: _put_together(item, tensors) for key, item in held}
