"""Bases in memory, and the artifacts that are loaded on them, each under a name.

A loaded prompt is compiled once: whatever stands in front of the text becomes K/V. Compiled prompts are keyed by the
artifact's content, never by name, and bound to the base that it was made on, so no row can meet another artifact's K/V.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from . import artifact as artifacts
from .answers import Compiled, compiled
from .artifact.ensemble_manifest import Combine
from .artifact.files import one_line
from .base import Base
from .engine import CacheConfig, take_prefix
from .ensemble import Together, check_members
from .errors import ArtifactError, DataError
from .methods import Method, make_method
from .prediction import HoldsArtifact
from .prepared import bind, restored
from .surroundings import plain_torch
from .tasks import Task


class Loaded:
    """Bases, and artifacts by name. All methods may be called from several threads at once.

    Attributes:
        bases: in the order in which they were added. A bare task runs on the first.
    """

    def __init__(self, base: Base | Sequence[Base]) -> None:
        self.bases: list[Base] = [base] if isinstance(base, Base) else list(base)
        self._lock = threading.Lock()
        self._names: dict[str, Together] = {}
        self._compiled: dict[str, Compiled] = {}

    @property
    def base(self) -> Base:
        """The first base."""
        if not self.bases:
            raise DataError("the runtime holds no base yet; add one with add_base(Base.load(NAME))")
        return self.bases[0]

    def add_base(self, base: Base) -> None:
        """Add a base; then artifacts that were made on it can be added."""
        self.bases.append(base)

    def base_for(self, manifest: artifacts.Manifest) -> Base:
        """The loaded base that an artifact was made on, by its digest.

        Raises:
            ArtifactError: that base is not loaded; the message names it.
        """
        errors = []
        for base in self.bases:
            try:
                artifacts.check_base(manifest, base)
            except ArtifactError as error:
                errors.append((manifest.base.digest == base.digest, error))
            else:
                return base
        if len(errors) == 1 or any(near for near, _ in errors):
            raise max(errors, key=lambda one: one[0])[1]
        here = ", ".join(repr(base.name) for base in self.bases) or "none"
        name, digest = one_line(repr(manifest.base.id), 80), one_line(manifest.base.digest, 12)
        raise ArtifactError(
            f"the artifact belongs to base {name} (digest {digest}), which is not loaded (loaded: {here}); add it with "
            "add_base(Base.load(…)) or --base"
        )

    @property
    def names(self) -> list[str]:
        """Names that rows may use."""
        return list(self._names)

    @plain_torch()
    def add(self, name: str, source: str | Path | Task | HoldsArtifact) -> None:
        """Add an artifact, an ensemble or a bare task (the base with its hard prompt) under a name.

        A folder may also be on the hub: `hub:OWNER/NAME[@REVISION][@sha256:DIGEST]`.

        It replaces an earlier one of that name for all later calls; calls under way finish with the old one.

        Raises:
            ArtifactError: it is damaged, or its base is not loaded.
        """
        weights: tuple[float, ...] = (1.0,)
        combine: Combine = "log_probs"
        if isinstance(source, (str, Path)):
            source = artifacts.folder_of(source)  # once: a branch on the hub may move between two looks
        if isinstance(source, Task):
            key = f"task:{id(source)}"
            prompts = [(key, self._prompt(key, self.base, source, make_method("hard")))]
        elif isinstance(source, HoldsArtifact):
            prompts = [self._prompt_of(source.as_artifact(), source)]
        elif artifacts.is_ensemble(source):
            ensemble = artifacts.load_ensemble(source, self._check)
            check_members({member: held.manifest for member, held in ensemble.members.items()})
            prompts = [self._prompt_of(held, source) for held in ensemble.members.values()]
            weights, combine = tuple(ensemble.manifest.weights), ensemble.manifest.combine
        else:
            prompts = [self._prompt_of(artifacts.load(Path(source), self._check), source)]
        with self._lock:
            kept = tuple(self._compiled.setdefault(key, prompt) for key, prompt in prompts)
            self._names[name] = Together(kept, weights, combine)
            self._forget_unused()

    def _check(self, manifest: artifacts.Manifest) -> None:
        """Refuse an artifact whose tensors need not be read: of another base, or longer than its base reads."""
        base, length = self.base_for(manifest), manifest.layout.length
        if manifest.layout.place == "front" and length >= base.max_positions:
            raise ArtifactError(
                f"the artifact's prompt has {length:,} tokens, base {base.name!r} reads {base.max_positions:,}; it is not ours"
            )

    def _prompt_of(self, held: artifacts.Artifact, source: object) -> tuple[str, Compiled]:
        """An artifact's digest, and its prompt on its base."""
        manifest = held.manifest
        if manifest.task is None:
            raise ArtifactError(
                f"{source}: the artifact names no task; it can be loaded in Python with a task of yours"
            )
        base, task = self.base_for(manifest), Task.of_artifact(manifest.task, manifest.format_version)
        return held.digest, self._prompt(held.digest, base, task, restored(held, base, task))

    def _prompt(self, key: str, base: Base, task: Task, method: Method) -> Compiled:
        """The prompt of this content: the one that is here, or compiled now."""
        with self._lock:
            prompt = self._compiled.get(key)
            engines = [other.engine for other in self._compiled.values()]
        if prompt is None:
            bound = bind(base, task, method, CacheConfig(ram=0, disk=0))
            take_prefix(bound.engine, engines)
            prompt = compiled(bound)
        return prompt

    def remove(self, name: str) -> None:
        """Forget an artifact.

        Raises:
            DataError: no such name.
        """
        with self._lock:
            if self._names.pop(name, None) is None:
                raise DataError(f"no artifact {name!r} is loaded (loaded: {', '.join(self._names) or 'none'})")
            self._forget_unused()

    def _forget_unused(self) -> None:
        in_use = {id(prompt) for served in self._names.values() for prompt in served.prompts}
        self._compiled = {key: value for key, value in self._compiled.items() if id(value) in in_use}

    def task(self, name: str) -> Task:
        """The task that an artifact answers; of an ensemble its first member's."""
        return self.served(name).task

    def get(self, name: str) -> Compiled:
        """The compiled prompt of a name.

        Raises:
            DataError: no such name, or an ensemble, which has several prompts.
        """
        prompts = self.prompts(name)
        if len(prompts) > 1:
            raise DataError(f"{name!r} is an ensemble of {len(prompts)} artifacts; ask for its prompts")
        return prompts[0]

    def prompts(self, name: str) -> tuple[Compiled, ...]:
        """The compiled prompts that answer under a name: one, or those of an ensemble's members.

        Raises:
            DataError: no such name.
        """
        return self.served(name).prompts

    def served(self, name: str) -> Together:
        """What answers under a name: a prompt, or those of an ensemble's members with their weights.

        Raises:
            DataError: no such name.
        """
        with self._lock:
            if name not in self._names:
                raise DataError(f"no artifact {name!r} is loaded (loaded: {', '.join(self._names) or 'none'})")
            return self._names[name]
