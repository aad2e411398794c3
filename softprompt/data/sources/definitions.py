"""Which of four definitions is that of a word? Made from WordNet 3.0 (Miller 1995; Fellbaum 1998)."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ...storage import atomic_file, cache_dir, sha256_file
from ..fetch import Bytes
from ..source import Source

_FILES = {  # of WordNet 3.0, as Debian has it
    "data.noun": "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2",
    "index.noun": "a490d99d93d017bf4822fe2f0ffa51fd73911ce271dc7535fade21f8814b5a04",
}
_SYSTEM = Path("/usr/share/wordnet")  # where Debian's package puts it
_DEB_SHA256 = "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752"
_OPTIONS, _SHORT, _LONG = 4, 15, 90
_NOT_WORDNET = "not a line of WordNet's data files (see wndb(5WN))"
_HOW = "install Debian's wordnet-base 3.0, or set SOFTPROMPT_WORDNET to a folder with data.noun and index.noun of any WordNet"


def own() -> list[Path]:
    """The noun files of the folder that SOFTPROMPT_WORDNET names, of any version of WordNet; none where it names none.

    Raises:
        DataError: it does not hold them.
    """
    named = os.environ.get("SOFTPROMPT_WORDNET")
    if not named:
        return []
    files = [Path(named).expanduser() / name for name in _FILES]
    if not all(file.is_file() for file in files):
        raise DataError(
            f"SOFTPROMPT_WORDNET={named}: holds no {' and '.join(_FILES)}; name WordNet's folder of data files, or unset it"
        )
    return files


def fetch(progress: Bytes | None) -> Path:
    """A folder with the noun files of WordNet 3.0: the system's if they are these, or of Debian's package in the cache.

    The package is fetched by apt and never installed.

    Raises:
        DataError: none of them is there; says what to do.
    """
    cached = cache_dir() / "downloads" / "wordnet"
    for folder in (_SYSTEM, cached):
        if all((folder / name).is_file() and sha256_file(folder / name) == known for name, known in _FILES.items()):
            return folder
    if shutil.which("apt-get") is None:
        raise DataError(f"WordNet 3.0 is not on this machine; {_HOW}")
    with tempfile.TemporaryDirectory() as scratch:
        asked = subprocess.run(
            ["apt-get", "download", "wordnet-base"], cwd=scratch, capture_output=True, text=True, check=False
        )
        files = list(Path(scratch).glob("wordnet-base_*.deb"))
        if asked.returncode or not files:
            reason = (asked.stderr.strip().splitlines() or ["apt gave no file"])[-1]
            raise DataError(f"WordNet 3.0 is not on this machine and apt cannot fetch it ({reason}); {_HOW}")
        if (found := sha256_file(files[0])) != _DEB_SHA256:
            raise DataError(f"{files[0].name}: has sha256 {found[:16]}…, expected {_DEB_SHA256[:16]}…; {_HOW}")
        return _unpack(files[0], cached)


def _unpack(package: Path, to: Path) -> Path:
    """The noun files of a Debian package: an `ar` archive that holds data.tar.xz."""
    data = package.read_bytes()
    at = 8  # behind "!<arch>\\n"; each member has a header of 60 bytes: name 16, …, size 10 at 48
    while at < len(data):
        name, size = data[at : at + 16].decode().strip(), int(data[at + 48 : at + 58])
        if name.startswith("data.tar"):
            break
        at += 60 + size + size % 2
    to.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data[at + 60 : at + 60 + size])) as archive:
        for item in archive.getmembers():
            if item.isfile() and Path(item.name).name in _FILES:
                file = archive.extractfile(item)
                assert file is not None
                with atomic_file(to / Path(item.name).name) as temporary:
                    temporary.write_bytes(file.read())
    return to


def parse(folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each single-word noun whose first sense has been met in texts; distractors are glosses of other such nouns.

    The gloss is what stands before the first example sentence. Words that stand in their own gloss, and glosses of fewer than
    15 or more than 90 characters, are left out. The three distractors are drawn (seeded) from the 40 nouns whose glosses are
    nearest in length, so that length says nothing.
    """
    glosses: dict[str, str] = {}
    members: dict[str, set[str]] = {}
    words: list[tuple[str, str, set[str]]] = []
    for where, line in _lines(folder / "data.noun"):
        try:
            fields, _, gloss = line.partition(" | ")
            parts = fields.split(" ")
            members[parts[0]] = {parts[4 + 2 * k].lower() for k in range(int(parts[3], 16))}
        except (IndexError, ValueError):
            raise DataError(f"{where}: {_NOT_WORDNET}") from None
        glosses[parts[0]] = re.split(r';\s*"', gloss.strip())[0].strip(" ;")
    for where, line in _lines(folder / "index.noun"):
        try:
            parts = line.strip().split(" ")
            pointers = int(parts[3])
            tagged, offsets = int(parts[5 + pointers]), parts[6 + pointers :]
            gloss = glosses[offsets[0]]
        except (IndexError, ValueError):
            raise DataError(f"{where}: {_NOT_WORDNET}") from None
        except KeyError:
            raise DataError(f"{where}: sense {offsets[0]} is not in data.noun; are the files of one WordNet?") from None
        if not parts[0].isalpha() or len(parts[0]) < 3:
            continue
        itself = re.search(rf"\b{re.escape(parts[0][:5])}", gloss, re.IGNORECASE)
        if tagged and _SHORT <= len(gloss) <= _LONG and itself is None:
            words.append((parts[0], offsets[0], set(offsets)))
    by_length = sorted(range(len(words)), key=lambda k: (len(glosses[words[k][1]]), words[k][0]))
    rank = {k: place for place, k in enumerate(by_length)}
    rng = np.random.default_rng(0)
    for k, (word, sense, senses) in enumerate(words):
        first = max(0, min(rank[k] - 20, len(words) - 41))
        near = [
            j for j in by_length[first : first + 41] if words[j][1] not in senses and word not in members[words[j][1]]
        ]
        rest = {glosses[words[j][1]] for j in near} - {glosses[sense]}
        if len(rest) < _OPTIONS - 1:
            continue
        drawn = rng.choice(sorted(rest), _OPTIONS - 1, replace=False).tolist()
        options = [glosses[sense], *drawn]
        order = rng.permutation(_OPTIONS).tolist()
        yield {
            "id": f"{word}-{sense}",
            "word": word,
            "choices": [options[place] for place in order],
            "answer": glosses[sense],
        }


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Where each line of a data file stands, and the line; those of the licence at the top begin with a space.

    Princeton's files are ASCII, other WordNets' UTF-8, and some older ones' Latin-1.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.startswith(" "):
            yield f"{path}:{number}", line.rstrip("\r")


SOURCES = (
    Source(
        name="definitions",
        title="which of four definitions is that of a noun",
        rows=6489,
        language="English",
        licence="WordNet 3.0 (free, BSD-like)",
        citation="Fellbaum 1998; WordNet 3.0, Princeton University",
        fetch=fetch,
        parse=parse,
        jsonl_sha256="847271cb0098d04c1cca24c6a68d72ed755bbfe89b172b84ee253897ecfd4d0b",
        task="choice",
        own=own,
        fields=("id", "word", "choices", "answer"),
    ),
)
