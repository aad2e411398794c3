"""The contract of a format: what it takes, what it writes, how what it wrote is loaded.

A new format is one file with a `Format` subclass and one line in `registry.py`, or an entry point in the group
`softprompt.formats`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..artifact import Artifact
from ..base import Base

BASE, FOLDER = "path/to/the/base", "path/to/this/folder"
"""What the code in a README names, for whoever runs it to replace."""


@dataclass(frozen=True)
class Written:
    """What a format wrote, for the README beside it.

    Attributes:
        what: what the folder holds, in a sentence or two.
        code: how to load it; names `BASE` and `FOLDER`.
        language: of the code, as Markdown calls it.
        notes: what else somebody who loads it must know, a sentence or two each.
    """

    what: str
    code: str
    language: str = "python"
    notes: tuple[str, ...] = ()


class Format(ABC):
    """One way of writing an artifact for another program.

    Attributes:
        title: who reads it, for the README's heading.
        needs_base: `write` runs the base, or reads more of it than its digests.
        takes_row: `write` takes a row; the others are never given one.
    """

    title: ClassVar[str]
    needs_base: ClassVar[bool] = True
    takes_row: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def lacking(cls, held: Artifact) -> str | None:
        """Why this format cannot hold an artifact, as far as its manifest says; None if it can."""

    @classmethod
    @abstractmethod
    def write(
        cls, held: Artifact, base: Base | None, folder: Path, name: str, row: Mapping[str, Any] | None
    ) -> Written:
        """Write the files.

        Args:
            held: an artifact that lies in a folder, and of which `lacking` says nothing.
            base: the artifact's own; None only where `needs_base` is False.
            folder: an empty folder.
            name: what the folder will be called in the end.
            row: the fields of a row; None where none was given.

        Raises:
            ConfigError: this base's artifacts cannot be written so; says what to do.
        """
