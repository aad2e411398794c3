"""All that a run will write is looked at before the work, and no other run is at work in its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .. import artifact as artifacts
from ..errors import ConfigError
from ..holding import held, remove_leftovers
from ..parallel import processes
from ..storage import check_writable, plain_disk_errors
from .checkpoints import BEFORE, EVENTS, NEWEST

ARTIFACT, RESULT, RUN = "artifact", "result.json", "run.yaml"
BUSY = "another run is at work here; wait for it, or take another --out"


@contextlib.contextmanager
def run_folder(folder: Path | None, files: tuple[str, ...] = ()) -> Iterator[None]:
    """Hold a run's folder (of several processes the first one does), after a look at what will be written into it.

    Args:
        files: names of further files that will be written there.

    Raises:
        SoftpromptError: another process is at work there; one of the files cannot be written.
        ArtifactError: `artifact/` holds something else.
    """
    if folder is None or not processes().main:
        yield
        return
    with plain_disk_errors(folder):
        if folder.is_file():
            raise ConfigError(f"{folder}: is a file; --out must name a folder")
    with held(folder, BUSY):
        check_run_folder(folder, files)
        remove_leftovers(folder, {ARTIFACT, NEWEST, BEFORE, EVENTS, RESULT, RUN, *files})
        yield


def check_run_folder(folder: Path, files: tuple[str, ...] = ()) -> None:
    """Whether a run can leave its files in a folder; see `run_folder`."""
    for name in (NEWEST, BEFORE, EVENTS, RESULT, RUN, *files):
        check_writable(folder / name)
    artifacts.check_place(folder / ARTIFACT)
