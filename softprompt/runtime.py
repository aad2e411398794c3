"""Serving: one base in memory, any number of artifacts, one batch with a different artifact (or none) per row.

A loaded prompt is compiled once: whatever stands in front of the text becomes K/V. Compiled prompts are keyed by the
artifact's content, never by name, and bound to this runtime's one base, so no row can meet another artifact's K/V.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from . import artifact as artifacts
from .answers import Compiled, Evaluation, answer, compiled, summarize
from .base import Base
from .data import refuse, rows_of
from .engine import CacheConfig
from .errors import ArtifactError, DataError
from .methods import make_method
from .prepared import bind, restored
from .surroundings import plain_torch
from .tasks import Task
from .types import Progress, ignore_progress
from .values import kind, plain_row


@dataclass(frozen=True)
class Prediction:
    """Answer to one row: the artifact that gave it, the label with all labels' probabilities, or what was written (without).

    Attributes:
        label: the label, what was written, or a tag for each word.
        cut: what was written had not ended after `generation.max_new_tokens`.
        truncated: the row's text was longer than the task or the base takes; this answers what was left of it.
        shown: an answer that is neither a label nor one text, by name (`tags` and `spans` of a tagged text).
    """

    artifact: str
    label: Any
    probabilities: dict[str, float]
    cut: bool = False
    truncated: bool = False
    shown: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As written by `softprompt predict`: `label` and `probabilities`, `text`, or what is `shown`."""
        if self.shown:
            return {"artifact": self.artifact, **self.shown}
        if not self.probabilities:
            return {"artifact": self.artifact, "text": self.label}
        return {"artifact": self.artifact, "label": self.label, "probabilities": self.probabilities}


@runtime_checkable
class HoldsArtifact(Protocol):
    """What a runtime takes in place of a folder, such as the result of a run."""

    def as_artifact(self) -> artifacts.Artifact:
        """The artifact, in memory."""


class Runtime:
    """One base, many prompts. All methods may be called from several threads at once.

    Example:
        >>> runtime = Runtime(Base.load("smollm2"))
        >>> runtime.add("movies", "runs/movies")
        >>> runtime.predict([{"text": "A quiet triumph."}], "movies")
    """

    def __init__(self, base: Base) -> None:
        self.base = base
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}
        self._compiled: dict[str, Compiled] = {}

    @property
    def names(self) -> list[str]:
        """Names that rows may use."""
        return list(self._names)

    @plain_torch()
    def add(self, name: str, source: str | Path | Task | HoldsArtifact) -> None:
        """Load an artifact (or take a task as it is: the bare base with its hard prompt) under a name.

        An earlier one of that name is swapped out for all later calls; calls under way finish with the old one.

        Raises:
            ArtifactError: damaged, or of another base.
        """
        if isinstance(source, Task):
            method, task, key = make_method("hard"), source, f"task:{id(source)}"
        else:
            held = source.as_artifact() if isinstance(source, HoldsArtifact) else artifacts.load(Path(source))
            if held.manifest.task is None:
                raise ArtifactError(
                    f"{source}: the artifact names no task; it can be loaded in Python with a task of yours"
                )
            task, key = Task.of_artifact(held.manifest.task, held.manifest.format_version), held.digest
            method = restored(held, self.base, task)
        with self._lock:
            prompt = self._compiled.get(key)
        prompt = prompt or compiled(bind(self.base, task, method, CacheConfig(ram=0, disk=0)))
        with self._lock:
            self._compiled.setdefault(key, prompt)
            self._names[name] = key
            self._forget_unused()

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
        in_use = set(self._names.values())
        self._compiled = {key: value for key, value in self._compiled.items() if key in in_use}

    def task(self, name: str) -> Task:
        """The task that an artifact answers."""
        return self.get(name).bound.task

    def get(self, name: str) -> Compiled:
        """The compiled prompt of a name.

        Raises:
            DataError: no such name.
        """
        with self._lock:
            if name not in self._names:
                raise DataError(f"no artifact {name!r} is loaded (loaded: {', '.join(self._names) or 'none'})")
            return self._compiled[self._names[name]]

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
        prompts = {name: self.get(name) for name in set(chosen)}
        asked = [(f"row {place}", plain_row(row)) for place, row in enumerate(rows, 1)]
        checks = (prompts[name].bound.task.check_input(values) for name, (_, values) in zip(chosen, asked, strict=True))
        refuse([(where, problem) for (where, _), problem in zip(asked, checks, strict=True)])
        examples = [
            prompts[name].form.encode(values, where) for name, (where, values) in zip(chosen, asked, strict=True)
        ]
        found = answer(examples, [prompts[name] for name in chosen], progress)
        return [
            Prediction(
                name,
                item.predicted,
                {label: float(torch.tensor(score).exp()) for label, score in item.scores.items()},
                item.cut,
                example.truncated,
                item.shown,
            )
            for name, example, item in zip(chosen, examples, found, strict=True)
        ]

    @plain_torch()
    def evaluate(self, name: str, rows: Sequence[Any], progress: Progress = ignore_progress) -> Evaluation:
        """The metric of one artifact over labelled rows (`Row`s from `Task.read` or `Task.load_data`)."""
        prompt = self.get(name)
        refuse([(row.where, prompt.bound.task.check_any(row.values)) for row in rows])
        examples = prompt.form.encode_rows(rows)
        outcomes = answer(examples, [prompt] * len(examples), progress)
        return summarize(prompt.task.spec.metric, outcomes)

    @plain_torch()
    def stream(
        self, row: Mapping[str, Any] | str, artifact: str | None = None, tell: Callable[[str], object] = print
    ) -> Prediction:
        """Answer one row, telling the text as it is written, in whole characters.

        Args:
            row, artifact: as in `predict`.
            tell: called with each new piece of text.

        Raises:
            DataError: see `predict`; or the artifact's answers are chosen, not written, or written by beams.
        """
        row = self._rows([row], artifact)[0]
        name = self._name_for(row, artifact, 0)
        prompt = self.get(name)
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
