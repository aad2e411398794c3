"""Writing an artifact in a format of another program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import artifact as artifacts
from .. import registry
from ..artifact import Artifact
from ..base import Base
from ..errors import ConfigError
from ..storage import atomic_folder, check_writable
from ..surroundings import plain_torch
from .format import Format
from .readme import readme

GROUP = "softprompt.formats"


@dataclass(frozen=True)
class Planned:
    """An export that nothing speaks against before the base is loaded."""

    held: Artifact
    format: type[Format]
    out: Path
    row: Mapping[str, Any] | None

    @plain_torch()
    def write(self, base: Base | None) -> Path:
        """Write it.

        Args:
            base: see `export`.

        Returns:
            the folder.

        Raises:
            ArtifactError: the artifact belongs to another base.
            ConfigError: see `export`.
        """
        if base is not None:
            artifacts.check_base(self.held.manifest, base)
        elif self.format.needs_base:
            named = self.held.manifest.base.id
            raise ConfigError(f"this format needs the artifact's base; give base=Base.load(…) of {named!r}")
        with atomic_folder(self.out) as folder:
            written = self.format.write(self.held, base, folder, self.out.name, self.row)
            text = readme(self.format.title, self.held.manifest, written)
            (folder / "README.md").write_text(text, encoding="utf-8")
        return self.out


def plan(artifact: str | Path, to: str, out: str | Path, row: Mapping[str, Any] | None = None) -> Planned:
    """Look at all that can be refused before the base is loaded.

    Raises:
        ArtifactError, ConfigError: see `export`.
    """
    kind: type[Format] = registry.find(GROUP, to)
    held, out = artifacts.load(artifact), Path(out)
    if (why := kind.lacking(held)) is not None:
        others = [name for name in registry.names(GROUP) if registry.find(GROUP, name).lacking(held) is None]
        instead = f"use --to {' or '.join(others)}" if others else "serve the artifact itself (softprompt predict)"
        raise ConfigError(f"{artifact}: {why}, so it has no {to!r} format; {instead}")
    if row is not None and not kind.takes_row:
        raise ConfigError(f"format {to!r} holds no row; leave out --text, or use --to prompt-embeds")
    if out.exists():
        raise ConfigError(f"{out}: exists already; choose another folder")
    check_writable(out)
    return Planned(held, kind, out, row)


def export(
    artifact: str | Path,
    to: str,
    out: str | Path,
    base: Base | None = None,
    row: Mapping[str, Any] | None = None,
) -> Path:
    """Write an artifact for another program, with a README that says how to load it.

    Args:
        artifact: its folder, or the folder of the run that made it.
        to: the format, as `softprompt export --help` lists them.
        out: the new folder.
        base: the base that the artifact was made on. The formats `peft` and `gguf-alora` do without.
        row: the fields of a row, where the format holds one (`prompt-embeds`).

    Returns:
        the folder.

    Raises:
        ArtifactError: the artifact is damaged, or belongs to another base.
        ConfigError: no such format, or one that cannot hold this artifact; `out` exists.
        SoftpromptError: `out` cannot be written.

    Example:
        >>> folder = export("runs/soft", "peft", "exported/soft")
        >>> sorted(file.name for file in folder.iterdir())
        ['README.md', 'adapter_config.json', 'adapter_model.safetensors']
    """
    return plan(artifact, to, out, row).write(base)
