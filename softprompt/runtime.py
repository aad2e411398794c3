"""Serving: one batch with a different artifact (or none) per row, or one document with many artifacts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .answers import Evaluation
from .base import Base
from .data import refuse, rows_of
from .documents import DocumentCache
from .ensemble import answer_together, evaluate_together
from .errors import DataError
from .loaded import Loaded
from .prediction import HoldsArtifact as HoldsArtifact
from .prediction import Prediction as Prediction
from .prediction import prediction_of
from .surroundings import plain_torch
from .types import Progress, ignore_progress
from .values import kind, plain_row


class Runtime(Loaded):
    """A base, or several, and many prompts. All methods may be called from several threads at once.

    Args:
        base: one, or several. A bare task runs on the first.
        documents: texts that `ask` has read, kept for the next questions about them.

    Example:
        >>> runtime = Runtime(Base.load("smollm2"))
        >>> runtime.add("movies", "runs/movies")
        >>> runtime.predict([{"text": "A quiet triumph."}], "movies")[0].label in ("negative", "positive")
        True
    """

    def __init__(self, base: Base | Sequence[Base], documents: DocumentCache | None = None) -> None:
        super().__init__(base)
        self.documents = documents or DocumentCache()

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
        return self._answered(rows, chosen, progress)

    @plain_torch()
    def ask(
        self, document: Any, artifacts: Sequence[str] | None = None, progress: Progress = ignore_progress
    ) -> list[Prediction]:
        """Ask several artifacts about one document.

        Artifacts that have the same tokens in front of the text, and learn nothing before its end (`infix`, activated LoRA,
        `hard`, `probe`), share its keys and values: it is read once, and kept for the next call (see `documents`). Each of
        them runs only its own tokens behind it, all in one batch. Other artifacts read it themselves.

        Args:
            document: a text, or the fields that the artifacts read.
            artifacts: their names; None: all that are loaded.

        Returns:
            An answer of each artifact, in their order.

        Raises:
            DataError: see `predict`; or nothing is loaded.

        Example:
            >>> runtime = Runtime(Base.load("smollm2"))
            >>> runtime.add("movies", "runs/movies")
            >>> [answer.artifact for answer in runtime.ask("A quiet triumph.")]
            ['movies']
        """
        names = self.names if artifacts is None else list(artifacts)
        if not names:
            raise DataError("no artifact is loaded to ask; add one with add(NAME, FOLDER)")
        rows = [row for name in names for row in self._rows([document], name)]
        return self._answered(rows, names, progress, self.documents)

    def _answered(
        self,
        rows: Sequence[Mapping[str, Any]],
        chosen: Sequence[str],
        progress: Progress,
        documents: DocumentCache | None = None,
    ) -> list[Prediction]:
        """Answers to rows, each by the artifact that is named for it."""
        served = {name: self.served(name) for name in set(chosen)}
        asked = [(f"row {place}", plain_row(row)) for place, row in enumerate(rows, 1)]
        checks = (served[name].check_input(values) for name, (_, values) in zip(chosen, asked, strict=True))
        refuse([(where, problem) for (where, _), problem in zip(asked, checks, strict=True)])
        examples = [served[name].encode(values, where) for name, (where, values) in zip(chosen, asked, strict=True)]
        found = answer_together(examples, [served[name] for name in chosen], progress, documents)
        return [prediction_of(*answered) for answered in zip(chosen, examples, found, strict=True)]

    @plain_torch()
    def evaluate(self, name: str, rows: Sequence[Any], progress: Progress = ignore_progress) -> Evaluation:
        """The metric of one artifact or ensemble over labelled rows (`Row`s from `Task.read` or `Task.load_data`)."""
        served = self.served(name)
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
