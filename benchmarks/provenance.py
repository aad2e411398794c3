"""What a figure was measured with: versions, commit, machine."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from softprompt.machine import memory, processor_name

PACKAGES = ("softprompt", "torch", "transformers", "tokenizers", "peft", "numpy", "scipy", "scikit-learn", "setfit")


@functools.cache
def versions() -> dict[str, str]:
    """Of the packages that decide results, those that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@functools.cache  # what a process runs is what it has loaded, whatever is committed meanwhile
def commit() -> tuple[str | None, bool | None]:
    """(commit, whether tracked files differ from it) of the checkout that this package lies in; None where it lies in none."""
    folder = Path(__file__).resolve().parents[1]
    if not (folder / ".git").exists():  # installed elsewhere, maybe inside another project's checkout
        return None, None

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        return git("rev-parse", "HEAD").strip(), bool(git("status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.CalledProcessError):
        return None, None


def machine() -> dict[str, Any]:
    """Processor, cores, threads that torch uses, memory in bytes, GPU's name (None without)."""
    return {
        "processor": processor_name(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": memory(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def processor_seconds() -> float:
    """What this process, and the other processes that it has waited for, have spent so far."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def now() -> str:
    """The time, in UTC, to the second (ISO 8601)."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def stamp() -> dict[str, Any]:
    """When, at which commit, on which machine and with which versions a record was made."""
    return {"time": now(), "commit": commit()[0], "machine": machine(), "versions": versions()}
