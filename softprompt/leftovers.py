"""Where a file or folder is made before it takes its place, and how what killed processes left there is found.

The place is a folder `.NAME.0123abcd.tmp` beside what it will be. Its maker holds a lock on it, which the system frees
when the process ends, however it ends. So a folder without a lock was left behind, and the next one to write NAME
removes it. Locks of folders are often not seen on other machines that share a disk (NFS). So the first four digits name
the machine, and what another one has made stays until nothing was changed in it for an hour.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

LEFT = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>tmp|old)")
"""What is not yet in its place (`tmp`), or was moved away from it (`old`)."""
QUIET = 3600.0
"""Seconds without a change after which what another machine has made was left behind."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def boot() -> str:
    """What names this start of this machine's kernel, which its containers share; empty where it has no name."""
    with contextlib.suppress(OSError):
        return _BOOT.read_text(encoding="ascii").strip()
    return ""


@contextlib.contextmanager
def making_folder(path: Path) -> Iterator[Path]:
    """Yield a new empty folder beside `path`, which goes at the end; those of killed processes go before.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_dead(path)
    folder, lock = _made(path)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)


@contextlib.contextmanager
def moved_away(target: Path, to: Path) -> Iterator[None]:
    """Rename a folder for the time of a `with`, in which no other process takes it for left behind; then it goes."""
    lock = _locked(target, wait=True)
    try:
        target.rename(to)
        try:
            yield
        except OSError:
            to.rename(target)
            raise
        shutil.rmtree(to, ignore_errors=True)
    finally:
        _unlock(lock)


def _made(path: Path) -> tuple[Path, int | None]:
    while True:
        folder = path.with_name(f".{path.name}.{_machine()}{secrets.token_hex(2)}.tmp")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        lock = _locked(folder, wait=True)
        if folder.is_dir():
            return folder, lock
        _unlock(lock)  # between the two lines another process took it for left behind


def _remove_dead(path: Path) -> None:
    """Bring back what was moved away from an empty place, and remove the rest; whatever fails, the next one tries again."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(path.parent)):
            left = LEFT.fullmatch(entry.name)
            if left is None or left["name"] != path.name or not entry.is_dir(follow_symlinks=False):
                continue
            if not _is_ours(entry.name) and left["kind"] == "tmp" and time.time() - entry.stat().st_mtime < QUIET:
                continue
            if (lock := _locked(Path(entry.path), wait=False)) is None:
                continue  # its maker is at work, or nobody can say
            try:
                if left["kind"] == "old" and not os.path.lexists(path):
                    Path(entry.path).rename(path)
                else:
                    shutil.rmtree(entry.path, ignore_errors=True)
            finally:
                _unlock(lock)


def _machine() -> str:
    """Four hex digits that stay the same until this machine starts anew."""
    return hashlib.sha256((boot() or platform.node()).encode()).hexdigest()[:4]


def _is_ours(name: str) -> bool:
    """Whether this machine has made a folder of such a name."""
    return name.rsplit(".", 2)[1].startswith(_machine())


def _locked(folder: Path, wait: bool) -> int | None:
    """A handle that holds the lock on a folder; None where another one has it or there are no locks."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ModuleNotFoundError, OSError):  # Windows; or it is gone
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        return None
    return handle


def _unlock(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)
