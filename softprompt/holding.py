"""One process at a time works in a folder, and what killed ones have left there goes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Container, Iterator
from pathlib import Path

from .errors import SoftpromptError
from .storage import atomic_folder, plain_disk_errors

OWNER = ".owner"  # who holds a folder, in words for who is refused; the lock itself goes with its process
_LEFT = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>tmp|old)")  # as `storage` names what is not yet whole
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
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SoftpromptError(f"{folder}: {refusal}{_of_whom(owner)}") from None
        except OSError:
            pass  # a file system without locks
        with plain_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)  # whoever held it may have removed it as empty
        with contextlib.suppress(OSError):  # a folder that is only read, or a full disk: then nobody knows who
            owner.write_text(str(os.getpid()), encoding="utf-8")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                owner.unlink()
                if made:
                    folder.rmdir()  # only goes through if it is empty
    finally:
        os.close(handle)


def remove_leftovers(folder: Path, names: Container[str]) -> None:
    """Remove what killed processes have not brought to an end in a folder that is held; only of files of these names.

    Where a process was killed between two renames, what it had moved away comes back.
    """
    for path in list(folder.iterdir()):
        left = _LEFT.fullmatch(path.name)
        if left is None or left["name"] not in names:
            continue
        with plain_disk_errors(path):
            if left["kind"] == "old" and not (folder / left["name"]).exists():
                path.rename(folder / left["name"])
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


@contextlib.contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """`atomic_folder`, before which goes what killed processes have left of it, unless another one is at work there."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(SoftpromptError):
            stack.enter_context(held(path.parent, "is being written to"))
            remove_leftovers(path.parent, {path.name})
        yield stack.enter_context(atomic_folder(path))


def _of_whom(owner: Path) -> str:
    pid = _pid(owner)
    return f" (process {pid})" if pid else ""


def _pid(owner: Path) -> int:
    try:
        return int(owner.read_bytes()[:20])
    except (OSError, ValueError):
        return 0
