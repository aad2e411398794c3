"""Which run files this user's own runs have written: another's must not say what is opened or loaded here.

The digest of each is kept in the cache folder. A run file that came from elsewhere, or was edited, is still read for settings,
but no base and no data are taken from it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..errors import SoftpromptError
from ..storage import cached_file, sha256_file, write_text
from ..yaml_file import MAX_BYTES


def remember(file: Path) -> None:
    """Note that we wrote this run file; where the cache cannot be written its base has to be named."""
    with contextlib.suppress(SoftpromptError, OSError):
        if (mark := _mark(file)) is not None:
            write_text(mark, "")


def is_known(file: Path) -> bool:
    """Whether a run of ours wrote this file, as it is."""
    with contextlib.suppress(SoftpromptError, OSError):
        mark = _mark(file) if file.stat().st_size <= 4 * MAX_BYTES else None
        return mark is not None and mark.is_file()
    return False


def _mark(file: Path) -> Path | None:
    return cached_file("runs", sha256_file(file))
