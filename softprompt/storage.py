"""Files that are either there and whole, or not there: cache folder, digests, atomic writes.

Every write goes tmp → fsync → rename → fsync(folder), so a kill -9, a full disk or a power cut leaves the earlier version.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import SoftpromptError
from .leftovers import making_folder, moved_away


def cache_dir() -> Path:
    """The user's cache: `$SOFTPROMPT_CACHE`, else `$XDG_CACHE_HOME/softprompt`, else `~/.cache/softprompt`.

    Raises:
        SoftpromptError: nothing says where it is: this user has no home.
    """
    own, root = os.environ.get("SOFTPROMPT_CACHE"), os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(own).expanduser() if own else Path(root).expanduser() / "softprompt"
    except RuntimeError:
        raise SoftpromptError(
            "there is no place for the cache, as this user has no home folder; set SOFTPROMPT_CACHE to a folder"
        ) from None


def cached_file(*parts: str) -> Path | None:
    """A path in the cache for looking only; None where there is no cache to look into."""
    try:
        return cache_dir().joinpath(*parts)
    except SoftpromptError:
        return None


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal bytes; what JSON does not know (dates) as text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def digest_of(value: Any) -> str:
    """Hex SHA-256 of a JSON-like value."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "backslashreplace")).hexdigest()


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path on the same disk; on success it replaces `path`, on failure nothing changes.

    A device or a pipe (`/dev/stdout`) is yielded as it is: it is written into, never replaced.
    """
    if _is_stream(path):
        with plain_disk_errors(path):
            yield path
        return
    with plain_disk_errors(path), making_folder(path) as folder:  # some libraries write files of their own beside it
        temporary = folder / path.name
        yield temporary
        _settle(temporary)
        temporary.replace(path)
        _sync(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes its place in one step, on failure nothing changes."""
    with plain_disk_errors(path), making_folder(path) as temporary:
        yield temporary
        for item in sorted(temporary.rglob("*"), reverse=True):  # what is in a folder before the folder
            if item.is_file():
                _settle(item)
            elif item.is_dir():
                _sync(item)
        _sync(temporary)
        _put_in_place(temporary, path)
        _sync(path.parent)


def _put_in_place(new: Path, target: Path) -> None:
    """Move `new` to `target`; an earlier folder there goes.

    That is one step of the kernel where it can exchange two names. With two renames, a kill between them leaves no folder
    there, until the next write brings the earlier one back.
    """
    with contextlib.suppress(OSError):
        target.rmdir()  # only goes through if it is empty
    if not target.exists():
        new.rename(target)
    elif not _exchange(new, target):
        with moved_away(target, new.with_suffix(".old")):
            new.rename(target)


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


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; half a character, of a path that is no UTF-8, as JSON would escape it."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def check_writable(path: Path) -> None:
    """Refuse a place for a file before the work whose result it is to hold.

    Raises:
        SoftpromptError: nothing can be written there.
    """
    with plain_disk_errors(path):
        if path.is_dir():
            raise SoftpromptError(f"{path}: cannot be written (it is a folder); name a file in it")
        if _is_stream(path):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


def _is_stream(path: Path) -> bool:
    """A device, a pipe, or a name of one (`/dev/stdout`, whatever the shell has put there)."""
    if path.absolute().parts[1:2] in (("dev",), ("proc",)):
        return path.exists() and path.parent != Path("/dev/shm")
    return path.exists() and not path.is_file() and not path.is_dir()


def _settle(file: Path) -> None:
    """Flush to disk and give the mode that the umask asks for (safetensors leaves 0600)."""
    umask = os.umask(0)
    os.umask(umask)
    file.chmod(0o666 & ~umask)
    _sync(file)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def called(folder: Path) -> str:
    """What an artifact is called where nobody names it: as its folder, or as the run whose `artifact/` it is."""
    whole = folder.resolve()
    return whole.parent.name if whole.name == "artifact" else whole.name


@contextlib.contextmanager
def plain_disk_errors(path: Path, advice: str = "") -> Iterator[None]:
    """Turn a full disk, a missing permission or a name that is too long into one clear line with this advice."""
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error), advice) from error
    except Exception as error:
        # safetensors tells the system's error in an exception of its own
        if type(error).__name__ == "SafetensorError" and (found := _OS_ERROR.search(str(error))):
            raise _unwritable(path, os.strerror(int(found[1])), advice) from error
        raise


_OS_ERROR = re.compile(r"os error (\d{1,4})")


def _unwritable(path: Path, reason: str, advice: str) -> SoftpromptError:
    in_cache = (cache := cached_file()) is not None and (path == cache or cache in path.parents)
    advice = advice or ("set SOFTPROMPT_CACHE to another folder" if in_cache else "free space or choose another place")
    return SoftpromptError(f"{path}: cannot be written ({reason}); {advice}")
