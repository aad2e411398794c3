"""Following folders: artifacts that appear or change are loaded, those that go are removed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import artifact as artifacts
from ..errors import SoftpromptError
from ..storage import called, digest_of
from .service import Service, manifest_folder

EVERY = 1.0  # seconds between looks at the folders


@dataclass(frozen=True)
class _Seen:
    """What a name stands for: where it lies, and its version (see `_version`)."""

    folder: Path
    version: str | None


class Follower:
    """Keeps a service like folders. What cannot be looked at stays as it is: not to be read is not to be gone.

    Args:
        folders: what is loaded now, by name.
        roots: the folders that are followed.
        note: called with a line for each change.
    """

    def __init__(
        self, service: Service, folders: Mapping[str, Path], roots: Sequence[Path], note: Callable[[str], object]
    ) -> None:
        self._service, self._roots, self._note = service, roots, note
        self._seen = {name: _Seen(folder, _version(folder)) for name, folder in folders.items()}
        self._doubled: set[Path] = set()
        self._unread: set[Path] = set()  # that was said

    def look(self) -> None:
        """Load and remove what has changed since the last look."""
        here: dict[str, Path] = {}
        unread: dict[Path, OSError] = {}
        for root in self._roots:
            self._collect(root, here, unread)
        for folder, error in unread.items():
            if folder not in self._unread:
                self._note(f"{folder} cannot be read ({error.strerror or error}); what was loaded from there stays")
        for folder in self._unread.difference(unread):
            self._note(f"{folder} can be read again")
        self._unread = set(unread)
        for name, folder in here.items():
            self._load(name, folder)
        for name, seen in list(self._seen.items()):
            if name not in here and not unread.keys() & {seen.folder, seen.folder.parent}:
                self._remove(name)

    def _collect(self, root: Path, here: dict[str, Path], unread: dict[Path, OSError]) -> None:
        """Add artifacts of a root by name, and what cannot be read of it."""
        try:
            alone = _is_artifact(root)
            inside = [root] if alone else sorted(root.iterdir())
        except OSError as error:
            unread[root] = error
            return
        for folder in inside:
            try:
                if not alone and not _is_artifact(folder):
                    continue
            except FileNotFoundError:  # it has just gone, or is a link to nothing
                continue
            except OSError as error:
                unread[folder] = error
                continue
            name = called(folder) if alone else folder.name
            first = here.setdefault(name, folder)
            if first.resolve() != folder.resolve() and folder not in self._doubled:
                self._doubled.add(folder)
                self._note(f"{folder} is not loaded: {first} is called {name}, too; rename one of them")

    def _load(self, name: str, folder: Path) -> None:
        seen, version = self._seen.get(name), _version(folder)
        if version is None or (seen is not None and seen.version == version):
            return
        try:
            self._service.add(name, folder)
            self._note(f"loaded {name}")
        except Exception as error:  # whatever is wrong with it, the version before goes on answering
            self._note(f"{name}: {error}")
        self._seen[name] = _Seen(folder, version)

    def _remove(self, name: str) -> None:
        del self._seen[name]
        with contextlib.suppress(SoftpromptError):
            self._service.remove(name)
            self._note(f"removed {name}")


def follow(service: Service, folders: Mapping[str, Path], roots: Sequence[Path], note: Callable[[str], object]) -> None:
    """Look at folders from time to time, in a thread of its own (see `Follower`)."""
    follower = Follower(service, folders, roots, note)

    def watch() -> None:
        wait = threading.Event()
        while not service.closing:
            wait.wait(EVERY)
            try:
                follower.look()
            except Exception as error:  # such as a folder that goes while it is read; the next look sees the rest
                note(f"the folders could not be looked at ({error})")

    threading.Thread(target=watch, name="softprompt watch", daemon=True).start()


def _is_artifact(folder: Path) -> bool:
    """Whether a folder holds an artifact, a run or an ensemble now.

    Raises:
        OSError: nobody can say, such as for want of a permission.
    """
    folder.stat()  # `is_dir` and `is_file` take what cannot be read for what is not there
    for file in (folder / "artifact" / "manifest.json", folder / "manifest.json"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            file.stat()
    return folder.is_dir() and (artifacts.is_ensemble(folder) or manifest_folder(folder) is not None)


def _version(folder: Path) -> str | None:
    """Changes with any file that an artifact consists of; None while it is not there."""
    try:
        held = manifest_folder(folder) or folder
        files = sorted(one for one in held.rglob("*") if one.is_file())
        return digest_of([[str(one.relative_to(held)), *_stamp(one)] for one in files])
    except OSError:
        return None


def _stamp(file: Path) -> tuple[int, int, int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
