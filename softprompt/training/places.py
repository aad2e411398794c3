"""All that a run will write is looked at before the work, and no other run is at work in its folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import artifact as artifacts
from ..errors import ConfigError
from ..holding import held, remove_leftovers
from ..parallel import processes
from ..storage import check_writable, plain_disk_errors
from .checkpoints import BEFORE, EVENTS, NEWEST

ARTIFACT, RESULT, RUN = "artifact", "result.json", "run.yaml"
FILES = (NEWEST, BEFORE, EVENTS, RESULT, RUN)
BUSY = "another run is at work here; wait for it, or use another --out"


@contextlib.contextmanager
def run_folder(folder: Path | None, files: Sequence[str] = ()) -> Iterator[None]:
    """Hold a run's folder (of several processes the first one does), after a look at what will be written into it.

    Args:
        files: names of further files that will be written there.

    Raises:
        SoftpromptError: another process is at work there; one of the files cannot be written.
        ArtifactError: `artifact/` holds something else.
    """
    with work_folder(folder, [*FILES, *files], [ARTIFACT]):
        if folder is not None and processes().main:
            artifacts.check_place(folder / ARTIFACT)
        yield


@contextlib.contextmanager
def work_folder(folder: Path | None, files: Sequence[str], folders: Sequence[str] = ()) -> Iterator[None]:
    """Hold a folder for work that writes these files and replaces these folders in it; see `run_folder`."""
    if folder is None or not processes().main:
        yield
        return
    with plain_disk_errors(folder):
        if folder.is_symlink() and not folder.exists():
            raise ConfigError(
                f"{folder}: is a link to {folder.readlink()}, which does not exist; --out must name a folder"
            )
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder}: is a file; --out must name a folder")
    with held(folder, BUSY):
        for name in files:
            check_writable(folder / name)
        remove_leftovers(folder, {*files, *folders})
        yield


def check_run_folders(folders: Sequence[Path]) -> None:
    """Look at the folders of runs that will be made one after the other, before the first.

    Raises:
        SoftpromptError, ArtifactError: see `run_folder`.
    """
    for folder in folders:
        with plain_disk_errors(folder):
            there = folder.exists()  # a name that is too long is told here
        if there:
            for name in FILES:
                check_writable(folder / name)
            artifacts.check_place(folder / ARTIFACT)


def earlier_report(path: Path) -> dict[str, Any]:
    """A report (`sweep.json`, …) as an earlier call has left it; empty where there is none that can be read."""
    try:
        held = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}
