"""What this process runs on: versions, processor, memory, cache, GPU. What a report of a mistake needs, and no more.

No network, no base is loaded, and no path tells who somebody is.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .base.bundled import list_bases
from .storage import cached_file

PACKAGES = (
    *("softprompt", "torch", "transformers", "tokenizers", "safetensors", "peft", "accelerate", "bitsandbytes"),
    *("numpy", "scipy", "scikit-learn", "datasets", "pyarrow", "gguf", "pydantic", "jinja2", "typer", "rich"),
)
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
_INSTRUCTIONS = (
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimddp", "bf16", "i8mm", "sve", "sve2"),
)


def describe() -> dict[str, dict[str, Any]]:
    """Facts by section, then by name; None where the system does not say. Sizes are in bytes."""
    return {
        "versions": versions(),
        "processor": _processor(),
        "memory": _memory(),
        "gpu": _gpus(),
        "cache": _cache(),
    }


def versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str | None]:
    """Of Python and of packages, None where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def processor_name() -> str:
    """The processor's name."""
    return _of_file("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def memory() -> int | None:
    """All memory of the machine in bytes."""
    return _pages("SC_PHYS_PAGES")


def _processor() -> dict[str, Any]:
    flags = (_of_file("/proc/cpuinfo", "flags") or _of_file("/proc/cpuinfo", "Features") or "").split()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "name": processor_name(),
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "torch_threads": torch.get_num_threads(),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "instruction_sets": [name for name in _INSTRUCTIONS if name in flags],
        "environment": {name: os.environ[name] for name in _THREADS if name in os.environ},
    }


def _memory() -> dict[str, int | None]:
    free = _of_file("/proc/meminfo", "MemAvailable")
    available = int(free.split()[0]) * 1024 if free else _pages("SC_AVPHYS_PAGES")
    return {"total": memory(), "available": available, "container_limit": _container_limit()}


def _container_limit() -> int | None:
    """Bytes that the control group may use; None without a limit."""
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = int(Path(file).read_text(encoding="ascii"))
        except (OSError, ValueError):  # no such system, or "max"
            continue
        if limit < 1 << 60:  # version 1 says "no limit" by a very large number
            return limit
    return None


def _gpus() -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"cuda": None, "mps": torch.backends.mps.is_available()}
    found: dict[str, Any] = {"cuda": torch.version.cuda or torch.version.hip}
    for place in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(place)
        found[f"device_{place}"] = {"name": about.name, "memory": about.total_memory}
    return found


def _cache() -> dict[str, Any]:
    folder = cached_file()
    if folder is None:
        return {"folder": None}
    existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    sizes = {base.name: _size(cached_file("bases", base.name)) for base, there in list_bases() if there}
    return {
        "folder": _without_home(folder),
        "disk_free": shutil.disk_usage(existing).free if existing else None,
        "size": _size(folder),
        "bundled_bases": sizes,
    }


def _without_home(folder: Path) -> str:
    """A path under the home folder as `~/…`; any other is only said to be another."""
    try:
        return str(Path("~", folder.resolve().relative_to(Path.home().resolve())))
    except (ValueError, RuntimeError):
        return "a folder outside of ~"


def _size(folder: Path | None) -> int:
    """Bytes of all files."""
    total = 0
    for path, _, names in os.walk(folder or ""):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_size  # noqa: PTH118 - names may be no UTF-8
            except OSError:  # it is gone
                continue
    return total


def _pages(name: str) -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf(name)
    except (AttributeError, OSError, ValueError):  # another system
        return None


def _of_file(file: str, key: str) -> str | None:
    """The value of a line `key : value`."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), None)
