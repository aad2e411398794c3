"""Outputs of a command replace nothing that it reads, nor what a run or an artifact consists of."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .console import out
from .streams import visible_json

if TYPE_CHECKING:
    from ..runfile import RunSpec


def behind_links(path: Path | None) -> Path | None:
    """Where a file that the user names is written: what a link leads to, so that the link stays (a `callback` of typer)."""
    return path.resolve() if path is not None and path.is_symlink() and path.parent != Path("/dev") else path


STDOUT = Path("-")
"""What an option that may name a file holds where it stands alone."""


def json_target(context: typer.Context, path: Path | None) -> Path | None:
    """Where `--json` goes (a `callback` of typer). On stdout nothing stands beside the document."""
    if path == STDOUT:
        context.call_on_close(lambda before=out.quiet: setattr(out, "quiet", before))  # type: ignore[misc]
        out.quiet = True
    return behind_links(path)


def tell_json(to: Path | None, document: Any) -> None:
    """Write a verb's document where `--json` says; nothing without it."""
    from ..data.writers import plain
    from ..storage import write_json

    if to == STDOUT:
        text = json.dumps(plain(document), indent=2, ensure_ascii=False)
        sys.stdout.write((visible_json(text) if sys.stdout.isatty() else text) + "\n")
    elif to is not None:
        write_json(to, plain(document))


def files_of(run: RunSpec | None) -> list[Path]:
    """Files in which a run has its task and its rows."""
    from ..tasks import Task

    if run is None:
        return []
    task = Task.load(run.task)
    data = task.spec.data
    rows = [task.folder / name for name in (data.source, data.train, data.dev, data.test) if name is not None]
    return [Path(run.task), *rows] if isinstance(run.task, str) else rows


def refuse_replacing(outputs: Mapping[str, Path | None], read: Iterable[str | Path | None] = ()) -> None:
    """Look at the files that will be written, before the work.

    Args:
        outputs: by option.
        read: what is read; of that, what is no file does not matter.

    Raises:
        ConfigError: one of them is a file that is read, a file of a run, an artifact or a base, or the same as another one.
        SoftpromptError: one of them cannot be written.
    """
    from ..errors import ConfigError
    from ..storage import check_writable

    sources = [Path(source) for source in read if source is not None and Path(source).exists()]
    seen: dict[Path, str] = {}
    for option, path in outputs.items():
        if path is None or path == STDOUT:
            continue
        check_writable(path)
        if (other := seen.setdefault(path.resolve(), option)) != option:
            raise ConfigError(f"{option} {path}: is the same file as {other}; name another one")
        if not path.exists():
            continue
        if any(path.samefile(source) for source in sources):
            raise ConfigError(f"{option} {path}: would replace a file that is read; name another one")
        if (owner := _owner(path.resolve())) is not None:
            raise ConfigError(f"{option} {path}: is a file of {owner}, which would be lost; name another file")


def _owner(path: Path) -> str | None:
    """What a file is part of: an artifact, a model, or a run."""
    from ..artifact.store import MANIFEST
    from ..training.places import ARTIFACT, FILES

    if (path.parent / MANIFEST).exists():
        return f"the artifact {path.parent}"
    if (path.parent / "config.json").exists() and any(path.parent.glob("*.safetensors")):
        return f"the model {path.parent}"
    return f"the run {path.parent}" if path.name in FILES and (path.parent / ARTIFACT).exists() else None
