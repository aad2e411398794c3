"""What an estimator has learned: the files of an artifact, and the base that answers behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .. import artifact as artifacts
from ..answers import Outcome
from ..artifact.store import check_place
from ..base import Base
from ..data import Row
from ..errors import InputError
from ..methods import Method
from ..prepared import prepare, restored
from ..storage import atomic_folder
from ..surroundings import plain_torch
from ..tasks import Task
from ..types import Progress, ignore_progress
from .shared import CACHE, LOCK, base_of, base_of_digest, keep_rows, kept_rows

_ASKED = "asked"


class Fitted:
    """An artifact in memory. Nothing of the base is part of it: it is found again by its settings.

    Attributes:
        files: the artifact's, by name; the same bytes as on disk.
        settings: which base, as `shared.base_of` takes it; None: one of the artifact's weights must be in this process.
    """

    def __init__(self, files: dict[str, bytes], settings: Any, base: Base | None = None) -> None:
        self.files, self.settings = files, settings
        self._base = base

    @classmethod
    def read(cls, folder: str | Path, settings: Any, base: Base | None = None) -> Fitted:
        """Of an artifact's folder, or that of the run that made it.

        Raises:
            ArtifactError: it is damaged.
        """
        path = artifacts.load(folder).path
        assert path is not None
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        return cls({file.relative_to(path).as_posix(): file.read_bytes() for file in files}, settings, base)

    def __getstate__(self) -> dict[str, Any]:
        """The files and the name of the base."""
        return {"files": self.files, "settings": self.settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # what it was made of

    def save(self, folder: str | Path) -> Path:
        """Write the artifact.

        Raises:
            ArtifactError: the folder holds something else.
        """
        check_place(target := Path(folder))
        with atomic_folder(target) as temporary:
            self._write(temporary)
        return target

    def _write(self, folder: Path) -> None:
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    @cached_property
    def artifact(self) -> artifacts.Artifact:
        """The artifact, checked.

        Raises:
            ArtifactError: the bytes are damaged.
        """
        with TemporaryDirectory() as folder:
            self._write(Path(folder))
            return replace(artifacts.load(folder), path=None)

    @cached_property
    def task(self) -> Task:
        """The task that it answers.

        Raises:
            InputError: it names none.
        """
        manifest = self.artifact.manifest
        if manifest.task is None:
            raise InputError("the artifact names no task, so it cannot be asked; load it with softprompt.load")
        return Task.of_artifact(manifest.task, manifest.format_version)

    @property
    def base(self) -> Base:
        """The base, loaded if it is not there.

        Raises:
            MissingBaseError: it cannot be loaded.
        """
        if self._base is None:
            self._base = base_of_digest(self.artifact.manifest.base.digest) or base_of(self.settings)
        return self._base

    @cached_property
    def _method(self) -> Method:
        return restored(self.artifact, self.base, self.task)

    def check(self) -> None:
        """
        Raises:
            ArtifactError: it is of another base, or damaged.
        """
        _ = self._method

    @plain_torch()
    def outcomes(self, rows: Sequence[Row], progress: Progress = ignore_progress) -> list[Outcome]:
        """Answer rows, with or without their right answers.

        Raises:
            DataError: rows that cannot be asked; all are named.
        """
        with LOCK:
            base = self.base
            ready = prepare(
                base, self.task, self._method, CACHE.config(), {_ASKED: list(rows)}, kept_rows(base), (_ASKED,)
            )
            found = ready.form.predict(ready, ready.splits[_ASKED], progress)
            keep_rows(ready)
        return found

    def predict_log_proba(
        self, rows: Sequence[Row], labels: Sequence[str], progress: Progress = ignore_progress
    ) -> np.ndarray:
        """Log-probabilities of the labels, [n, K], each row's normalised in double precision."""
        scores = [[outcome.scores[label] for label in labels] for outcome in self.outcomes(rows, progress)]
        values = np.array(scores, dtype=float).reshape(-1, len(labels))
        return values - np.logaddexp.reduce(values, axis=1, keepdims=True)
