"""Serving: bases in memory, any number of artifacts, one batch with a different artifact (or none) per row.

A loaded prompt is compiled once: whatever stands in front of the text becomes K/V. Compiled prompts are keyed by the
artifact's content, never by name, and bound to the base that it was made on, so no row can meet another artifact's K/V.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from . import artifact as artifacts
from .answers import Compiled, Evaluation, compiled
from .artifact.files import one_line
from .base import Base
from .data import refuse, rows_of
from .engine import CacheConfig
from .ensemble import Together, answer_together, check_members, evaluate_together
from .errors import ArtifactError, DataError
from .methods import Method, make_method
from .prediction import HoldsArtifact as HoldsArtifact
from .prediction import Prediction as Prediction
from .prepared import bind, restored
from .surroundings import plain_torch
from .tasks import Task
from .types import Progress, ignore_progress
from .values import kind, plain_row


class Runtime:
    """A base, or several, and many prompts. All methods may be called from several threads at once.

    Attributes:
        bases: in the order in which they were added. A bare task runs on the first.

    Example:
        >>> runtime = Runtime(Base.load("smollm2"))
        >>> runtime.add("movies", "runs/movies")
        >>> runtime.predict([{"text": "A quiet triumph."}], "movies")[0].label in ("negative", "positive")
        True
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

        It replaces an earlier one of that name for all later calls; calls under way finish with the old one.

        Raises:
            ArtifactError: it is damaged, or its base is not loaded.
        """
        weights: tuple[float, ...] = (1.0,)
        if isinstance(source, Task):
            key = f"task:{id(source)}"
            prompts = [(key, self._prompt(key, self.base, source, make_method("hard")))]
        elif isinstance(source, HoldsArtifact):
            prompts = [self._prompt_of(source.as_artifact(), source)]
        elif artifacts.is_ensemble(source):
            ensemble = artifacts.load_ensemble(source)
            check_members({member: held.manifest for member, held in ensemble.members.items()})
            prompts = [self._prompt_of(held, source) for held in ensemble.members.values()]
            weights = tuple(ensemble.manifest.weights)
        else:
            prompts = [self._prompt_of(artifacts.load(Path(source)), source)]
        with self._lock:
            kept = tuple(self._compiled.setdefault(key, prompt) for key, prompt in prompts)
            self._names[name] = Together(kept, weights)
            self._forget_unused()

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
        return prompt or compiled(bind(base, task, method, CacheConfig(ram=0, disk=0)))

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
        return self._served(name).task

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
        return self._served(name).prompts

    def _served(self, name: str) -> Together:
        with self._lock:
            if name not in self._names:
                raise DataError(f"no artifact {name!r} is loaded (loaded: {', '.join(self._names) or 'none'})")
            return self._names[name]

    @plain_torch()
    def predict(self, rows: Any, artifact: str | None = None, progress: Progress = ignore_progress) -> list[Prediction]:
        """Answer rows, each with its own artifact.

        Args:
            rows: fields that the artifact's template reads; a field `artifact` names its artifact. A list of dicts, a DataFrame
                or a `datasets.Dataset`; where the template reads one field, also texts.
            artifact: for rows that name none (may be left out when only one is loaded).

        Raises:
            DataError: a row that names no loaded artifact, lacks a field, or holds none that could be read; all are named.
        """
        rows = self._rows(rows, artifact)
        chosen = [self._name_for(row, artifact, place) for place, row in enumerate(rows)]
        served = {name: self._served(name) for name in set(chosen)}
        asked = [(f"row {place}", plain_row(row)) for place, row in enumerate(rows, 1)]
        checks = (served[name].check_input(values) for name, (_, values) in zip(chosen, asked, strict=True))
        refuse([(where, problem) for (where, _), problem in zip(asked, checks, strict=True)])
        examples = [served[name].encode(values, where) for name, (where, values) in zip(chosen, asked, strict=True)]
        found = answer_together(examples, [served[name] for name in chosen], progress)
        return [
            Prediction(
                name,
                item.predicted,
                {label: float(torch.tensor(score).exp()) for label, score in item.scores.items()},
                item.cut,
                any(example.truncated for example in own),
                item.shown,
            )
            for name, own, item in zip(chosen, examples, found, strict=True)
        ]

    @plain_torch()
    def evaluate(self, name: str, rows: Sequence[Any], progress: Progress = ignore_progress) -> Evaluation:
        """The metric of one artifact or ensemble over labelled rows (`Row`s from `Task.read` or `Task.load_data`)."""
        served = self._served(name)
        refuse([(row.where, served.task.check_any(row.values)) for row in rows])
        return evaluate_together(served, rows, progress)

    @plain_torch()
    def stream(
        self, row: Mapping[str, Any] | str, artifact: str | None = None, tell: Callable[[str], object] = print
    ) -> Prediction:
        """Answer one row and pass on its text as it is generated, in whole characters.

        Args:
            row, artifact: as in `predict`.
            tell: called with each new piece of text.

        Raises:
            DataError: see `predict`; or the artifact chooses its answers, or generates them with beams.
        """
        row = self._rows([row], artifact)[0]
        name = self._name_for(row, artifact, 0)
        prompt = self.prompts(name)[0]  # an ensemble chooses its answers, so it is refused like its members
        if prompt.form.unstreamable:
            raise DataError(f"artifact {name!r} {prompt.form.unstreamable}")
        refuse([("the row", prompt.bound.task.check_input(values := plain_row(row)))])
        example = prompt.form.encode(values)
        outcome = prompt.form.stream(prompt, example, tell)
        return Prediction(name, outcome.predicted, {}, outcome.cut, example.truncated)

    def _rows(self, rows: Any, default: str | None) -> list[Mapping[str, Any]]:
        """Rows as a list, each with its fields (a mapping, or what has items like one); a text stands for the only field.

        Raises:
            DataError: something else.
        """
        asked = rows_of(rows)
        if (first := next((place for place, row in enumerate(asked, 1) if isinstance(row, str)), None)) is not None:
            task = self.task(self._name_for({}, default, first - 1))
            if (field := task.only_field) is None:
                names = ", ".join(map(repr, sorted(task.fields)))
                raise DataError(
                    f"row {first}: is a text, but task {task.name!r} reads {names}; give each of them a value"
                )
            asked = [{field: row} if isinstance(row, str) else row for row in asked]
        expected = 'expected its fields, e.g. {"text": "…"}'
        odd = [None if hasattr(row, "items") else f"is {kind(row)}; {expected}" for row in asked]
        refuse([(f"row {place}", problem) for place, problem in enumerate(odd, 1)])
        return asked

    def _name_for(self, row: Mapping[str, Any], default: str | None, place: int) -> str:
        name = row.get("artifact")
        if name is None or (isinstance(name, str) and not name):
            name = default
        if name is None and len(self._names) == 1:
            name = self.names[0]
        if not isinstance(name, str):
            raise DataError(
                f'row {place + 1}: names no artifact; add a field "artifact", one of {", ".join(self.names)}'
            )
        return name
