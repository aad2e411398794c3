"""A runtime for the folders that a command names: artifacts and ensembles, and the bases that they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .console import base_of

if TYPE_CHECKING:
    from ..artifact import Manifest
    from ..runtime import Runtime
    from ..types import Progress


def manifests_of(folder: Path) -> dict[Path, Manifest]:
    """The manifest of an artifact, or those of an ensemble's members, by their folders.

    Raises:
        ArtifactError: damaged, or neither.
    """
    from ..artifact import is_ensemble, load, load_ensemble

    if not is_ensemble(folder):
        return {folder: load(folder).manifest}
    return {member.path or folder: member.manifest for member in load_ensemble(folder).members.values()}


def runtime_for(
    folders: Mapping[str, Path],
    manifests: Mapping[str, Mapping[Path, Manifest]],
    given: Sequence[str],
    dtype: str | None,
    quantization: str | None,
    show: Progress,
) -> Runtime:
    """A runtime with these artifacts and ensembles by name, and the bases that they need.

    Args:
        manifests: of each name; see `manifests_of`.
        given: bases that the user names instead of those that `base_of` finds, in the order of what needs them.

    Raises:
        ConfigError: see `base_of`.
        ArtifactError: a given base is not that of an artifact.
    """
    from ..errors import ArtifactError
    from ..runtime import Runtime

    needed = [(path, manifest) for own in manifests.values() for path, manifest in own.items()]
    runtime = Runtime([])
    for place, name in enumerate(given):
        path, manifest = needed[min(place, len(needed) - 1)]
        runtime.add_base(base_of(path, manifest.base.id, name, dtype, quantization).load(show))
    for path, manifest in needed if not given else []:
        try:
            runtime.base_for(manifest)
        except ArtifactError:
            runtime.add_base(base_of(path, manifest.base.id, None, dtype, quantization).load(show))
    for name, folder in folders.items():
        runtime.add(name, folder)
    return runtime


def named_folders(artifacts: list[str]) -> dict[str, Path]:
    """Folders by name. What is a folder by the whole argument is one, whatever stands in it (a sweep's `lr=0.01`).

    Raises:
        ConfigError: two of one name.
        ArtifactError: one on the hub cannot be downloaded.
    """
    from ..artifact import folder_of
    from ..artifact.hub import is_hub
    from ..errors import ConfigError
    from ..storage import called

    folders: dict[str, Path] = {}
    for item in artifacts:
        name: str | None
        name, sign, folder = item.partition("=")
        if not sign or is_hub(item) or Path(item).is_dir():
            name, folder = None, item
        path = folder_of(folder)
        name = called(path) if name is None else name
        if name in folders:
            raise ConfigError(f"two artifacts are called {name!r}; name them: first={folders[name]} second={folder}")
        folders[name] = path
    return folders
