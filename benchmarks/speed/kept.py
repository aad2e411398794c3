"""Rows that a folder keeps, each with what it was measured with, so that a later call goes on with those that are left."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

import softprompt.adapters
import softprompt.benchmarks.speed
from softprompt.benchmarks import provenance
from softprompt.errors import ConfigError, DataError
from softprompt.storage import digest_of, plain_disk_errors, sha256_file, write_json

ROWS = "rows.json"
_ENTRY = {"row", "seconds", "at", "settings"}
# what decides a row, in words; `code` is told by its commit
_WORDS = {"base": "base", "files": "files of the base", "steps": "number of steps", "versions": "versions"}
_WORDS |= {"code": "code", "machine": "machine"}


class Kept:
    """The rows of a folder; written as a whole after each of them.

    Args:
        folder: None keeps nothing.
        settings: what decides a row (see `settings_of`).

    Raises:
        DataError: the folder's file is none of ours, or damaged.
    """

    def __init__(self, folder: Path | None, settings: dict[str, Any]) -> None:
        self.folder, self.settings = folder, json.loads(json.dumps(settings))  # as it will be read
        self._entries: dict[str, dict[str, Any]] = {} if folder is None else _read(folder / ROWS)

    def refuse_others(self, names: Iterable[str]) -> None:
        """Look whether rows of these names were measured with something else.

        Raises:
            ConfigError: the first of them, what differs, and what to do.
        """
        for name in names:
            if name in self._entries and (told := _difference(self._entries[name]["settings"], self.settings)):
                raise ConfigError(
                    f"{self.folder}: {name} was measured with {told}; use another --out, or --fresh to measure it again"
                )

    def forget(self, names: Iterable[str]) -> None:
        """Take rows out of the folder."""
        gone = [name for name in names if self._entries.pop(name, None) is not None]
        if gone:
            self._write()

    def row(self, name: str) -> dict[str, Any] | None:
        """The row of this name, if it is kept."""
        return self._entries[name]["row"] if name in self._entries else None

    def seconds(self, name: str) -> float:
        """What measuring a kept row took, start of the processes included."""
        return float(self._entries[name]["seconds"])

    def measured_at(self, names: Iterable[str]) -> tuple[str, str]:
        """When the first and the last of these kept rows were measured (ISO 8601, UTC)."""
        times = sorted(self._entries[name]["at"] for name in names)
        return times[0], times[-1]

    def add(self, name: str, row: dict[str, Any], seconds: float) -> None:
        """Keep a row, at once."""
        entry = {"row": row, "seconds": seconds, "at": provenance.now(), "settings": self.settings}
        self._entries[name] = entry
        self._write()

    def _write(self) -> None:
        if self.folder is not None:
            write_json(self.folder / ROWS, {"format": 1, "rows": self._entries})


def settings_of(base: str, folder: str, steps: str, versions: dict[str, str]) -> dict[str, Any]:
    """What decides a row: of other settings it is another figure.

    Args:
        base: as it was named.
        folder: where it lies.
    """
    commit, _ = provenance.commit()
    machine = provenance.machine()
    used = {name: machine[name] for name in ("processor", "cores", "threads", "gpu")}
    used |= {"vectors": torch.backends.cpu.get_cpu_capability()}
    used |= {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "")}  # what waiting threads do
    return {
        "steps": steps,
        "base": str(Path(base).resolve()) if Path(base).is_dir() else base,
        "files": _files_of(Path(folder)),
        "versions": versions,
        "code": _digest_of_code(),
        "commit": commit,
        "machine": used,
    }


def _files_of(folder: Path) -> str | None:
    """Digest of a base's configuration and of its weights' names and sizes; None of what is no folder."""
    if not folder.is_dir():
        return None
    config = folder / "config.json"
    sizes = sorted((path.name, path.stat().st_size) for path in folder.glob("*.safetensors"))
    return digest_of([sha256_file(config) if config.is_file() else None, sizes])


def _digest_of_code() -> str:
    """Of what a worker may run: the package but for its command line, and this benchmark."""
    digests = []
    for package in (softprompt, softprompt.adapters, softprompt.benchmarks.speed):
        top = Path(str(package.__file__)).parent
        for path in sorted(top.rglob("*.py")):
            name = path.relative_to(top).as_posix()
            if not name.startswith(("cli/", "benchmarks/compare/")):
                digests.append([package.__name__, name, sha256_file(path)])
    return digest_of(digests)


def _difference(there: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs first, in words; empty where nothing does."""
    for key, word in _WORDS.items():
        before, after = there.get(key), now.get(key)
        if before == after:
            continue
        if key == "code":
            before, after = (str(of.get("commit") or "no commit")[:10] for of in (there, now))
            return f"other {word} (commit {before}, now {after})" if before != after else f"other {word}, not committed"
        if key == "files":
            return f"other {word}"
        if isinstance(before, dict) and isinstance(after, dict):
            name = next(name for name in (*before, *after) if before.get(name) != after.get(name))
            return f"another {name} (then {before.get(name)}, now {after.get(name)})"
        return f"another {word} (then {before}, now {after})"
    return ""


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        with plain_disk_errors(path):
            text = path.read_bytes() if path.exists() else b'{"format": 1, "rows": {}}'
        content = json.loads(text)
        if content["format"] != 1 or not all(set(entry) >= _ENTRY for entry in content["rows"].values()):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(
            f"{path}: holds no rows of `bench speed`, or is damaged; remove it, or use another --out"
        ) from None
    rows: dict[str, dict[str, Any]] = content["rows"]
    return rows
