"""Replace a folder in one step: a kill at any moment leaves the old one or the new one, never none.

`storage.atomic_folder` makes the new folder whole; what our promise needs beyond it is the exchange of the two names.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import sys
from pathlib import Path

from ..errors import SoftpromptError
from ..storage import atomic_folder


def write_folder(target: Path, files: dict[str, bytes]) -> None:
    """Write a whole folder of files beside `target`, then put it in the place of what was there.

    Raises:
        SoftpromptError: full disk or missing permission; `target` is as it was.
    """
    staged = target.with_name(f".{target.name}.{secrets.token_hex(4)}.new")
    try:
        with atomic_folder(staged) as temporary:
            for name in sorted(files):
                (temporary / name).write_bytes(files[name])
        _put_in_place(staged, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SoftpromptError(f"{target}: cannot be written ({reason}); free space or choose another place") from None
    except SoftpromptError as error:
        raise SoftpromptError(str(error).replace(str(staged), str(target))) from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _put_in_place(staged: Path, target: Path) -> None:
    """Move `staged` to `target`; an earlier folder there ends up as `staged`.

    One step of the kernel where it can exchange two names: with two renames, a kill between them leaves no artifact.
    """
    with contextlib.suppress(FileNotFoundError, OSError):
        target.rmdir()  # only goes through if it is empty
    if not target.exists():
        staged.rename(target)
    elif not _exchange(staged, target):
        old = staged.with_suffix(".old")
        target.rename(old)
        staged.rename(target)
        old.rename(staged)
    with contextlib.suppress(OSError):
        handle = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names at once; False where the system cannot (Linux and macOS can, on most file systems)."""
    first, second = os.fsencode(one), os.fsencode(other)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return bool(libc.renamex_np(first, second, 2) == 0)  # RENAME_SWAP
        return bool(libc.renameat2(-100, first, -100, second, 2) == 0)  # AT_FDCWD, RENAME_EXCHANGE
    except (AttributeError, OSError, TypeError):
        return False
