"""Serving: one base in memory, any number of artifacts, one batch with a different artifact (or none) per row.

A loaded prompt is compiled once: whatever stands in front of the text becomes K/V. Compiled prompts are keyed by the
artifact's content, never by name, and bound to this runtime's one base, so no row can meet another artifact's K/V.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from . import artifact as artifacts
from .base import Base
from .engine import CacheConfig, Engine, Past, Row, buckets, generate, make_engine, plan, run
from .engine.rows import Piece
from .errors import ArtifactError, DataError
from .evaluate import Evaluation, Outcome, free_outcome, outcome, outcomes, summarize
from .methods import Method, make_method
from .methods.base import bind
from .methods.headed import with_head
from .scoring import Prior, prior, relative
from .tasks import BoundTask, Task
from .tasks.generation import FreeSpec, Generation
from .types import Example, Progress, ignore_progress

if TYPE_CHECKING:
    from transformers import TextStreamer


@dataclass(frozen=True)
class Compiled:
    """A prompt ready to serve: its K/V in front of the text, its pieces behind it, what its live tokens run through.

    Attributes:
        writes: settings of `generate` where answers are written; rows of equal ones are written together.
    """

    method: Method
    bound: BoundTask
    engine: Engine
    trunk: Past | None
    middle: Mapping[str, Piece]
    live: Base
    prior: Prior
    writes: str | None


@dataclass(frozen=True)
class Prediction:
    """Answer to one row: the artifact that gave it, the label with all labels' probabilities, or what was written (without)."""

    artifact: str
    label: str
    probabilities: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """As written by `softprompt predict`: `label` and `probabilities`, or `text`."""
        if not self.probabilities:
            return {"artifact": self.artifact, "text": self.label}
        return {"artifact": self.artifact, "label": self.label, "probabilities": self.probabilities}


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

    def add(self, name: str, source: str | Path | Task) -> None:
        """Load an artifact (or take a task as it is: the bare base with its hard prompt) under a name.

        An earlier one of that name is swapped out for all later calls; calls under way finish with the old one.

        Raises:
            ArtifactError: damaged, or of another base.
        """
        if isinstance(source, Task):
            method, task, key = make_method("hard"), source, f"task:{id(source)}"
        else:
            held = artifacts.load(Path(source))
            artifacts.check_base(held.manifest, self.base.digest, self.base.tokenizer_digest, self.base.name)
            if held.manifest.task is None:
                raise ArtifactError(
                    f"{source}: the artifact names no task; it can be loaded in Python with a task of yours"
                )
            task, key = Task.load(held.manifest.task), held.digest
            method = with_head(make_method(held.manifest.method, str(source)), self.base, task)
            method.restore(held.tensors, self.base)
        with self._lock:
            compiled = self._compiled.get(key)
        compiled = compiled or self.compile(method, task)
        with self._lock:
            self._compiled.setdefault(key, compiled)
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

    def predict(
        self, rows: Sequence[Mapping[str, Any]], artifact: str | None = None, progress: Progress = ignore_progress
    ) -> list[Prediction]:
        """Answer rows, each with its own artifact.

        Args:
            rows: fields that the artifact's template reads; a field `artifact` names its artifact.
            artifact: for rows that name none (may be left out when only one is loaded).

        Raises:
            DataError: a row that names no loaded artifact or lacks a field.
        """
        chosen = [self._name_for(row, artifact, place) for place, row in enumerate(rows)]
        prompts = {name: self.get(name) for name in set(chosen)}
        examples = [
            prompts[name].bound.example(dict(row), f"row {place + 1}")
            for place, (name, row) in enumerate(zip(chosen, rows, strict=True))
        ]
        found = self.outcomes(examples, [prompts[name] for name in chosen], progress)
        return [
            Prediction(name, item.predicted, {k: float(torch.tensor(v).exp()) for k, v in item.scores.items()})
            for name, item in zip(chosen, found, strict=True)
        ]

    def evaluate(self, name: str, rows: Sequence[Any], progress: Progress = ignore_progress) -> Evaluation:
        """The metric of one artifact over labelled rows (`Row`s from `Task.read` or `Task.load_data`)."""
        prompt = self.get(name)
        examples = prompt.bound.examples(rows)
        return summarize(prompt.bound.task.spec.metric, self.outcomes(examples, [prompt] * len(examples), progress))

    def stream(
        self, row: Mapping[str, Any], artifact: str | None = None, tell: Callable[[str], object] = print
    ) -> Prediction:
        """Answer one row, telling the text as it is written, in whole words (and whole characters).

        Args:
            row, artifact: as in `predict`.
            tell: called with each new piece of text.

        Raises:
            DataError: see `predict`; or the artifact's answers are chosen, not written.
        """
        from .streaming import Told  # transformers' streamers bring much along

        name = self._name_for(row, artifact, 0)
        prompt = self.get(name)
        if prompt.writes is None:
            raise DataError(
                f"artifact {name!r} chooses its answers (type {prompt.bound.task.spec.type!r}); ask predict"
            )
        example = prompt.bound.example(dict(row))
        found = self._write([example], [prompt], [self._row(example, prompt)], Told(prompt.bound, tell))
        return Prediction(name, found[0].predicted, {})

    @torch.no_grad()
    def outcomes(
        self, examples: Sequence[Example], prompts: Sequence[Compiled], progress: Progress = ignore_progress
    ) -> list[Outcome]:
        """Run examples, each behind its own prompt, mixed freely in length-sorted batches."""
        rows = [self._row(example, prompt) for example, prompt in zip(examples, prompts, strict=True)]
        found: dict[int, Outcome] = {}
        for part in self._parts(rows, prompts):
            some = (
                [examples[index] for index in part],
                [prompts[index] for index in part],
                [rows[index] for index in part],
            )
            answer = self._choose if prompts[part[0]].writes is None else self._write
            found.update(zip(part, answer(*some), strict=True))
            progress("answering", len(found), len(rows))
        return [found[index] for index in range(len(rows))]

    @staticmethod
    def _row(example: Example, prompt: Compiled) -> Row:
        return prompt.engine.row(example, prompt.trunk, prompt.middle)

    def _choose(self, examples: list[Example], prompts: list[Compiled], rows: list[Row]) -> list[Outcome]:
        """The best candidate of each row of one batch."""
        record = any(len(ids) > 1 for example in examples for ids in example.candidates)
        batch = None if self.base.bidirectional else run(self.base, rows, None, record, prompts[0].live)
        found: dict[int, Outcome] = {}
        by_prompt: dict[int, list[int]] = {}
        for place, prompt in enumerate(prompts):
            by_prompt.setdefault(id(prompt), []).append(place)
        for places in by_prompt.values():
            prompt, some = prompts[places[0]], [examples[place] for place in places]
            if batch is None:  # rows run whole, and once for each length of their candidates
                found.update(zip(places, outcomes(prompt.engine, prompt.method, prompt.bound, some), strict=True))
                continue
            before = prompt.prior
            if before is None:
                before = prior(prompt.engine, prompt.method, prompt.bound, prompt.method.learned(), some)
            scores = prompt.method.score(batch.rows(places), [example.candidates for example in some])
            for place, example, values in zip(places, some, scores, strict=True):
                labels = relative(prompt.method, prompt.bound, values, example.candidates, before)
                found[place] = outcome(prompt.bound, example, labels)
        return [found[place] for place in range(len(rows))]

    def _write(
        self, examples: list[Example], prompts: list[Compiled], rows: list[Row], told: TextStreamer | None = None
    ) -> list[Outcome]:
        """What is written behind each row of one batch."""
        bound = prompts[0].bound
        spec = cast(Generation, bound.task).spec.generation
        batch = run(self.base, rows, None, True, prompts[0].live)
        answers = generate(batch, self.base.tokenizer, bound.ends, spec.settings(), spec.seed, told)
        return [
            free_outcome(prompt.bound, example, prompt.bound.read(ids))
            for example, prompt, ids in zip(examples, prompts, answers, strict=True)
        ]

    @staticmethod
    def _parts(rows: Sequence[Row], prompts: Sequence[Compiled]) -> Iterator[list[int]]:
        """Indices of the rows of each batch, sorted by length: those that run through the same weights and answer alike."""
        together: dict[tuple[int, str | None], list[int]] = {}
        for index, prompt in enumerate(prompts):
            together.setdefault((id(prompt.live.model), prompt.writes), []).append(index)
        for some in together.values():
            for part in buckets([rows[index].size for index in some]):
                yield [some[place] for place in part]

    def compile(self, method: Method, task: Task) -> Compiled:
        """Run what stands in front of the text, once. `method` must hold its learned tensors."""
        bound = bind(task, self.base, method)
        bound.room -= method.positions
        how = plan(method.segments(bound.slots, len(bound.cue)), bidirectional=self.base.bidirectional)
        engine = make_engine(self.base, how, bound.head, bound.cue, CacheConfig(ram=0, disk=0), tail=bound.tail)
        spec = task.spec
        writes = json.dumps(spec.generation.settings()) if isinstance(spec, FreeSpec) and not method.points else None
        with torch.no_grad():
            learned = method.learned()
            trunk = engine.trunk(learned)
            before = prior(engine, method, bound, learned) if task.answering == "scored" else None
            return Compiled(
                method,
                bound,
                engine,
                trunk.detach() if trunk else None,
                engine.middle(learned),
                learned.base or self.base,
                before,
                writes,
            )

    def _name_for(self, row: Mapping[str, Any], default: str | None, place: int) -> str:
        name = row.get("artifact", default)
        if name is None and len(self._names) == 1:
            name = self.names[0]
        if not isinstance(name, str):
            raise DataError(
                f'row {place + 1}: names no artifact; add a field "artifact", one of {", ".join(self.names)}'
            )
        return name
