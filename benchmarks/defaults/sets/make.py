"""Make the files of sets, each checked against its recorded digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from softprompt.benchmarks.defaults.sets.cleaning import as_csv, draw, keep
from softprompt.benchmarks.defaults.sets.clones import open_clone
from softprompt.benchmarks.defaults.sets.entries import ENTRIES, SetEntry
from softprompt.config import suggest
from softprompt.errors import DataError
from softprompt.storage import atomic_file, sha256_file


def make_sets(folder: Path, clones: Path, only: Sequence[str], say: Callable[[str], None]) -> None:
    """Make FOLDER/judge/NAME.csv and FOLDER/tune/NAME.csv; a file that is there already is not made again.

    Args:
        clones: folder of the repositories, as OWNER/NAME; those that it lacks are fetched into it.
        only: names of sets; empty: all.
        say: is given two lines a set, the second of them its licence, and a line before a fetch.

    Raises:
        DataError: no set of that name, no clone and no way to fetch it, or a file with another digest than the recorded one.
    """
    for name in only:
        if name not in ENTRIES:
            raise DataError(f"no set {name!r}{suggest(name, ENTRIES)}")
    for name, entry in ENTRIES.items():
        if not only or name in only:
            path = folder / entry.group / f"{name}.csv"
            state = "is there already" if _is_there(path, entry) else _made(path, entry, clones, say)
            say(f"{path}: {state}, from {entry.repository.name} at {entry.repository.commit}")
            say(f"  licence: {entry.licence}")


def _is_there(path: Path, entry: SetEntry) -> bool:
    """Whether the file has been made.

    Raises:
        DataError: another file has its name.
    """
    if not path.exists():
        return False
    if (digest := sha256_file(path)) != entry.sha256:
        raise DataError(
            f"{path}: has sha256 {digest}, recorded is {entry.sha256}; move the file away to have it made anew"
        )
    return True


def _made(path: Path, entry: SetEntry, clones: Path, say: Callable[[str], None]) -> str:
    """Make the file, and say how many rows and labels it has.

    Raises:
        DataError: it would have another digest; nothing is written.
    """
    rows = draw(keep(entry.parse(open_clone(entry.repository, clones, say))))
    content = as_csv(rows)
    if (digest := hashlib.sha256(content).hexdigest()) != entry.sha256:
        raise DataError(
            f"{entry.name}: gives a file with sha256 {digest}, recorded is {entry.sha256}; "
            "it was not written, please report it"
        )
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return f"{len(rows)} rows, {len({label for _, label in rows})} labels"
