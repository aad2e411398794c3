"""One place where whatever a user gives for an artifact becomes a folder."""

from __future__ import annotations

from pathlib import Path

from .ensemble import is_ensemble, load_ensemble
from .hub import check_digest, fetched, is_hub
from .store import load


def folder_of(source: str | Path) -> Path:
    """The folder of an artifact, ensemble or run; an address on the hub (`hub:OWNER/NAME`) is downloaded.

    Raises:
        ArtifactError: it cannot be downloaded, or it is another artifact than the address pins (see `hub.py`).
    """
    if not is_hub(source):
        return Path(source)
    folder, wanted = fetched(source)
    if wanted is not None:
        held = load_ensemble(folder) if is_ensemble(folder) else load(folder)
        check_digest(source, wanted, held.digest)
    return folder
