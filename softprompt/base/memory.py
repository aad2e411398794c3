"""Keep freed memory in the process: a training step allocates and frees the same hundreds of megabytes every time.

glibc gives large blocks back to the system at once, and the next step pays for every page again. Measured on encoded
texts: 35,000 page faults and 0.1 s of system time in a step of 0.27 s.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import platform

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from <malloc.h>
_LARGEST = 2**31 - 1


def keep_freed_memory(device: torch.device) -> None:
    """Raise glibc's thresholds for giving memory back, for a base on the CPU; nothing elsewhere."""
    if device.type != "cpu" or not _on_glibc():
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST)


def give_back_freed_memory() -> None:
    """Let the system have what nothing holds any more, where it was kept: a base that is done with stands beside no other."""
    gc.collect()  # modules and their hooks hold each other
    if _on_glibc():
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _on_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def peak_memory() -> dict[str, float]:
    """Most memory that this process has held so far, in GB (10⁹ bytes): resident, and on the GPU where there is one."""
    found = {}
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        unit = 1 if platform.system() == "Darwin" else 1024
        found["peak_rss_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    if torch.cuda.is_available():
        found["peak_cuda_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return found
