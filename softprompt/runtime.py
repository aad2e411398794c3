"""Serving: one batch with a different artifact (or none) per row, or one document with many artifacts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .answers import Evaluation
from .base import Base
from .data import refuse, rows_of
from .documents import DocumentCache, text_keys
from .engine import TextKey
from .ensemble import Together, answer_together, evaluate_together
from .errors import DataError
from .loaded import Loaded
from .prediction import HoldsArtifact as HoldsArtifact
from .prediction import Prediction as Prediction
from .prediction import prediction_of
from .surroundings import plain_torch
from .types import Example, Progress, ignore_progress
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
        names, rows = self._asked_of(document, artifacts)
        return self._answered(rows, names, progress, self.documents)

    @plain_torch()
    def readings(self, document: Any, artifacts: Sequence[str] | None = None) -> list[list[TextKey | None]]:
        """By what the reading of a document is shared, where `ask` is asked the same; nothing is read for it.

        Returns:
            Of each artifact a key, of an ensemble one for each member. Equal keys are one reading. None: it reads the
            document by itself.

        Raises:
            DataError: see `ask`.
        """
        names, rows = self._asked_of(document, artifacts)
        served = [self.served(name) for name in names]
        examples = _encoded(rows, served, "artifact", names)
        prompts = [prompt for one in served for prompt in one.prompts]
        keys = iter(text_keys([example for own in examples for example in own], prompts))
        return [[next(keys) for _ in one.prompts] for one in served]

    def _asked_of(self, document: Any, artifacts: Sequence[str] | None) -> tuple[list[str], list[Mapping[str, Any]]]:
        """The artifacts that are asked, and the document as each one's row."""
        names = self.names if artifacts is None else list(artifacts)
        if not names:
            raise DataError("no artifact is loaded to ask; add one with add(NAME, FOLDER)")
        if isinstance(document, str):
            return names, [{self._only_field(name, "the document"): document} for name in names]
        if not hasattr(document, "items"):
            raise DataError(f'the document is {kind(document)}; expected a text, or its fields, e.g. {{"text": "…"}}')
        return names, [document] * len(names)

    def _answered(
        self,
        rows: Sequence[Mapping[str, Any]],
        chosen: Sequence[str],
        progress: Progress,
        documents: DocumentCache | None = None,
    ) -> list[Prediction]:
        """Answers to rows, each by the artifact that is named for it; with `documents` to one document."""
        every = {name: self.served(name) for name in set(chosen)}
        served = [every[name] for name in chosen]
        called = ("row", range(1, len(rows) + 1)) if documents is None else ("artifact", chosen)
        examples = _encoded(rows, served, *called)
        found = answer_together(examples, served, progress, documents)
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
            field = self._only_field(self._name_for({}, default, first - 1), f"row {first}:")
            asked = [{field: row} if isinstance(row, str) else row for row in asked]
        expected = 'expected its fields, e.g. {"text": "…"}'
        odd = [None if hasattr(row, "items") else f"is {kind(row)}; {expected}" for row in asked]
        refuse([(f"row {place}", problem) for place, problem in enumerate(odd, 1)])
        return asked

    def _only_field(self, name: str, what: str) -> str:
        """The field that a text stands for.

        Raises:
            DataError: the artifact of this name reads several; `what` is a text.
        """
        task = self.task(name)
        if (field := task.only_field) is None:
            names = ", ".join(map(repr, sorted(task.fields)))
            raise DataError(f"{what} is a text, but task {task.name!r} reads {names}; give each of them a value")
        return field

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


def _encoded(
    rows: Sequence[Mapping[str, Any]], served: Sequence[Together], what: str, names: Sequence[object]
) -> list[list[Example]]:
    """Each row as the examples of those that answer it.

    Args:
        what, names: what errors call the rows, and each of them.

    Raises:
        DataError: rows that cannot be asked; all are named.
    """
    places = [f"{what} {name!r}" for name in names]
    asked = list(zip(served, places, map(plain_row, rows), strict=True))
    refuse([(where, one.check_input(values)) for one, where, values in asked], what=f"{what}s")
    return [one.encode(values, where) for one, where, values in asked]
