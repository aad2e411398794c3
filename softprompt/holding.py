"""One process at a time works in a folder, and what killed ones have left there goes."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import threading
import time
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import SoftpromptError, visible
from .leftovers import LEFT, boot
from .storage import plain_disk_errors

OWNER = ".owner"  # who holds a folder; the lock itself goes with its process
_ours: dict[tuple[int, int], int] = {}  # folders that this process holds → the thread that does
_guard = threading.Lock()


@contextlib.contextmanager
def held(folder: Path, refusal: str) -> Iterator[None]:
    """Hold a folder, made if need be, against other processes that want to; however this one ends, it is free again.

    Within it the same thread may hold it again. A folder that is made for it and stays empty goes again.

    Raises:
        SoftpromptError: another process or thread holds it, with this refusal; it cannot be made or read.
    """
    with plain_disk_errors(folder):
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        found = folder.stat()
    key, thread = (found.st_dev, found.st_ino), threading.get_ident()
    with _guard:
        again = _ours.get(key) == thread
        if _ours.setdefault(key, thread) != thread:
            raise SoftpromptError(f"{folder}: {refusal} (in another thread of this process)")
    if again:
        yield
        return
    try:
        with _locked(folder, refusal, made):
            yield
    finally:
        with _guard:
            _ours.pop(key, None)


@contextlib.contextmanager
def _locked(folder: Path, refusal: str, made: bool) -> Iterator[None]:
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        yield
        return
    owner = folder / OWNER
    with plain_disk_errors(folder):
        handle = os.open(folder, os.O_RDONLY)
    try:
        has_locks = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SoftpromptError(f"{folder}: {refusal}{_who_holds(owner)}") from None
        except OSError:
            has_locks = False
        with plain_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)  # whoever held it may have removed it as empty
        earlier = _read(owner)
        if earlier is not None and not earlier.has_ended(has_locks):
            raise SoftpromptError(f"{folder}: {refusal} ({earlier}); if that process has ended, remove {owner}")
        with contextlib.suppress(OSError):  # a folder that is only read, or a full disk: then nobody knows who
            owner.write_text(_us().as_text(), encoding="utf-8")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                owner.unlink()
                if made:
                    folder.rmdir()  # only goes through if it is empty
    finally:
        os.close(handle)


@dataclass(frozen=True)
class _Owner:
    """The process that holds a folder, as it wrote itself down there.

    Attributes:
        host, boot: its machine's name, and what names this start of its kernel; empty where it did not say.
    """

    pid: int
    host: str = ""
    boot: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {visible(self.host)[:80]}" if self.host else f"process {self.pid}"

    def as_text(self) -> str:
        return f"{self.pid}\n{self.host}\n{self.boot}\n"

    def has_ended(self, has_locks: bool) -> bool:
        """Whether it is certain that it works no more.

        Args:
            has_locks: we have the lock on its folder. All processes of one kernel share it, those of two machines may not.
        """
        us = _us()
        if has_locks and self.boot and self.boot == us.boot:
            return True
        if self.host not in ("", us.host):
            return False
        started_anew = bool(self.boot and us.boot) and self.boot != us.boot
        return has_locks or started_anew or not _is_alive(self.pid)


def _us() -> _Owner:
    return _Owner(os.getpid(), platform.node(), boot())


def _is_alive(pid: int) -> bool:
    """Whether another process of this machine has this number."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return pid != os.getpid()


def _who_holds(owner: Path) -> str:
    for _ in range(20):  # it may have taken the lock just now
        if (found := _read(owner)) is not None:
            return f" ({found})"
        time.sleep(0.01)
    return ""


def _read(owner: Path) -> _Owner | None:
    try:
        with owner.open("rb") as file:
            pid, host, boot = [*file.read(1000).decode("utf-8", "replace").split("\n"), "", ""][:3]
        return _Owner(number, host, boot) if (number := int(pid)) > 0 else None
    except (OSError, ValueError):
        return None


def remove_leftovers(folder: Path, names: Container[str]) -> None:
    """Remove what killed processes have not brought to an end in a folder that is held; only of files of these names.

    Where a process was killed between two renames, what it had moved away comes back.
    """
    for path in list(folder.iterdir()):
        left = LEFT.fullmatch(path.name)
        if left is None or left["name"] not in names:
            continue
        with plain_disk_errors(path):
            if left["kind"] == "old" and not (folder / left["name"]).exists():
                path.rename(folder / left["name"])
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
