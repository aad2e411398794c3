"""What an estimator has learned: the files of an artifact or ensemble, and the bases that answer behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .. import artifact as artifacts
from ..answers import Outcome
from ..base import Base
from ..data import Row
from ..ensemble import Together
from ..errors import InputError
from ..methods import Method
from ..prepared import prepare, restored
from ..storage import atomic_folder
from ..surroundings import plain_torch
from ..tasks import Task
from ..tasks.multilabel import MultiLabel
from ..types import Progress, ignore_progress
from .shared import CACHE, LOCK, base_of, base_of_digest, keep_rows, kept_rows

_ASKED = "asked"


@dataclass(frozen=True)
class Member:
    """An artifact on its base; alone, or one of an ensemble."""

    artifact: artifacts.Artifact
    task: Task
    base: Base
    method: Method

    @plain_torch()
    def outcomes(self, rows: Sequence[Row], progress: Progress) -> list[Outcome]:
        """Answer rows; what other estimators of this process have encoded is used again."""
        kept = kept_rows(self.base)
        ready = prepare(self.base, self.task, self.method, CACHE.config(), {_ASKED: list(rows)}, kept, (_ASKED,))
        found = ready.form.predict(ready, ready.splits[_ASKED], progress)
        keep_rows(ready)
        return found


class Fitted:
    """An artifact in memory, or an ensemble of them. Nothing of a base is part of it: it is found again by its settings.

    Attributes:
        files: their contents by path, the same bytes as on disk.
        settings: which base each member has, as `shared.base_of` takes it.
    """

    def __init__(self, files: dict[str, bytes], settings: Sequence[Any], bases: Sequence[Base] = ()) -> None:
        self.files, self.settings = files, list(settings)
        self._bases = list(bases)

    @classmethod
    def read(cls, folder: str | Path, settings: Sequence[Any] = (), bases: Sequence[Base] = ()) -> Fitted:
        """Of an artifact's folder, an ensemble's, or that of the run that made it.

        Raises:
            ArtifactError: it is damaged.
        """
        folder = artifacts.folder_of(folder)
        load = artifacts.load_ensemble if artifacts.is_ensemble(folder) else artifacts.load
        path = load(folder).path
        assert path is not None
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        return cls({file.relative_to(path).as_posix(): file.read_bytes() for file in files}, settings, bases)

    def __getstate__(self) -> dict[str, Any]:
        """The files and the names of the bases."""
        return {"files": self.files, "settings": self.settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # what it was made of

    def save(self, folder: str | Path) -> Path:
        """Write the artifact.

        Raises:
            ArtifactError: the folder holds something else.
        """
        target = Path(folder)
        if len(self.manifests) > 1:
            artifacts.check_ensemble_place(target)
        else:
            artifacts.check_place(target)
        with atomic_folder(target) as temporary:
            self._write(temporary)
        return target

    def _write(self, folder: Path) -> None:
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    @cached_property
    def _held(self) -> tuple[list[artifacts.Artifact], Together]:
        """Artifacts, and how they answer together, checked."""
        with TemporaryDirectory() as folder:
            self._write(Path(folder))
            if artifacts.is_ensemble(folder):
                ensemble = artifacts.load_ensemble(folder)
                held, m = list(ensemble.members.values()), ensemble.manifest
                together = Together((), tuple(m.weights), m.combine)
            else:
                held, together = [artifacts.load(folder)], Together(())
        return [replace(one, path=None) for one in held], together

    @property
    def manifests(self) -> list[artifacts.Manifest]:
        """Each member's.

        Raises:
            ArtifactError: the bytes are damaged.
        """
        return [one.manifest for one in self._held[0]]

    @cached_property
    def task(self) -> Task:
        """The task that it answers.

        Raises:
            InputError: it names none.
        """
        return _task(self.manifests[0])

    @property
    def votes(self) -> bool:
        """Whether it is an ensemble that answers by votes.

        Raises:
            ArtifactError: the bytes are damaged.
        """
        return self._held[1].combine == "vote"

    @cached_property
    def members(self) -> list[Member]:
        """Each artifact on its base, which is loaded if it is not there.

        Raises:
            MissingBaseError: it cannot be loaded.
            ArtifactError: it is another base.
        """
        found = []
        for place, held in enumerate(self._held[0]):
            base = self._base(held.manifest.base.digest, place)
            task = _task(held.manifest)
            found.append(Member(held, task, base, restored(held, base, task)))
        return found

    def _base(self, digest: str, place: int) -> Base:
        """The base of a member: of those that were given (the wrong one is told later), of this process, or loaded."""
        if self._bases:
            return next((one for one in self._bases if one.digest == digest), self._bases[0])
        return base_of_digest(digest) or base_of(self.settings[place])

    def outcomes(self, rows: Sequence[Row], progress: Progress = ignore_progress) -> list[Outcome]:
        """Answer rows, with or without their right answers.

        Raises:
            DataError: rows that cannot be asked; all are named.
        """
        with LOCK:
            each = [member.outcomes(rows, progress) for member in self.members]
        return [self._held[1].outcome(said) for said in zip(*each, strict=True)]

    def predict_log_proba(
        self, rows: Sequence[Row], labels: Sequence[str], progress: Progress = ignore_progress
    ) -> np.ndarray:
        """Log-probabilities of the labels, [n, K], in double precision; where a row has one label they are normalised."""
        scores = [[outcome.scores[label] for label in labels] for outcome in self.outcomes(rows, progress)]
        values = np.array(scores, dtype=float).reshape(-1, len(labels))
        if isinstance(self.task, MultiLabel):
            return values
        return values - np.logaddexp.reduce(values, axis=1, keepdims=True)


def _task(manifest: artifacts.Manifest) -> Task:
    if manifest.task is None:
        raise InputError("the artifact names no task, so it cannot be asked; load it with softprompt.load")
    return Task.of_artifact(manifest.task, manifest.format_version)
