"""What every task type shares: its file, its rows, and how it is bound to a base's tokenizer.

A new task type is one file with a `Task` subclass and one line in `registry.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import registry
from ..config import parse, read_yaml, suggest
from ..data import CATALOGUE, Duplicates, Row, deduplicate, few_shot, get_source, normalize, read_rows, split
from ..engine import lay_out
from ..errors import ConfigError, DataError
from ..template import Prompter
from ..types import Example, Ids, Progress, ignore_progress, megabytes
from .spec import TaskSpec

READY = files("softprompt.tasks") / "ready"


class Task(ABC):
    """A task file, checked. Get one with `Task.load`.

    Attributes:
        spec: the file's content.
        folder: relative paths in the file are relative to it.
        left_out: duplicates that the last `load_data` left out.
    """

    def __init__(self, spec: TaskSpec, folder: Path | None = None) -> None:
        self.spec, self.folder = spec, folder or Path()
        self.left_out = Duplicates(0, 0)
        self.check()

    @staticmethod
    def load(source: str | Path | dict[str, Any]) -> Task:
        """From a ready name (`movie-reviews`), a YAML file, or a mapping.

        Raises:
            ConfigError: all that is wrong with it, in one line.
        """
        if isinstance(source, dict):
            return Task._make(source, "task", Path())
        if str(source) in (ready := ready_tasks()):
            return Task._make(read_yaml(ready[str(source)]), str(source), Path())
        path = Path(source)
        if not path.exists() and path.suffix not in (".yaml", ".yml"):
            raise ConfigError(f"no task {str(source)!r}: neither a ready one{suggest(str(source), ready)} nor a file")
        return Task._make(read_yaml(path), str(path), path.parent)

    @staticmethod
    def _make(data: dict[str, Any], where: str, folder: Path) -> Task:
        spec = parse(TaskSpec, data, where)
        kind = registry.find("softprompt.tasks", spec.type)
        try:
            return kind(spec, folder)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    @property
    def name(self) -> str:
        """The task's name."""
        return self.spec.name

    def with_demonstrations(self, rows: Sequence[Row]) -> Task:
        """The same task that carries these rows as its demonstrations."""
        keep = self.spec.template.fields | set(self.answer_fields)
        shots = [{key: value for key, value in row.values.items() if key in keep} for row in rows]
        demonstrations = self.spec.demonstrations.model_copy(update={"k": len(shots), "rows": shots})
        return type(self)(self.spec.model_copy(update={"demonstrations": demonstrations}), self.folder)

    def draw_demonstrations(self, rows: Sequence[Row]) -> tuple[Task, list[Row]]:
        """The task with its `demonstrations.k` drawn from the labelled ones of these rows, and the rows that are left.

        As it is, with all rows, where it asks for none or carries them already.

        Raises:
            DataError: fewer labelled rows than demonstrations.
        """
        wanted = self.spec.demonstrations
        if not wanted.k or wanted.rows:
            return self, list(rows)
        labelled = [row for row in rows if self.gold_label(row.values) is not None]
        shots = few_shot(labelled, wanted.k, self.label, wanted.seed)
        chosen = {id(row) for row in shots}
        return self.with_demonstrations(shots), [row for row in rows if id(row) not in chosen]

    def load_data(self, progress: Progress = ignore_progress, labelled: bool = True) -> dict[str, list[Row]]:
        """Read, check and split the rows: `train`, `dev`, `test`, disjoint also by normalised text.

        Args:
            progress: told while a catalogue source is fetched, the first time.
            labelled: every row needs its label.

        Raises:
            DataError: every malformed row at once; too few rows; no source.
        """
        data = self.spec.data
        separate = {name: path for name in ("train", "dev", "test") if (path := getattr(data, name)) is not None}
        if data.source is None and not separate:
            raise ConfigError(f"task {self.name!r}: data.source is missing: a catalogue name, a file, or datasets:NAME")
        if data.source is not None and separate:
            raise ConfigError(f"task {self.name!r}: give data.source or data.{next(iter(separate))}, not both")
        sizes = {name: getattr(data.split, name) for name in ("train", "dev", "test")}
        if data.source is not None:
            rows = self._different(self.read(data.source, progress, labelled))
            return split(rows, sizes, self.label, data.split.seed)
        found = {name: self.read(path, progress, labelled) for name, path in separate.items()}
        if "train" in found and "dev" not in found:
            rows = self._different(found["train"])
            size = min(sizes["dev"] or 256, len(rows) // 5) if not isinstance(sizes["dev"], float) else sizes["dev"]
            found |= split(rows, {"dev": size, "train": None}, self.label, data.split.seed)
        splits = {name: found.get(name, []) for name in ("test", "dev", "train")}
        seen: dict[str, Row] = {}
        leaked = []
        for name, rows in splits.items():
            mine = [(normalize(self.content(row)), row) for row in rows]
            leaked += [
                f"{row.where}: the text of this {name} row is in {seen[key].where}" for key, row in mine if key in seen
            ]
            seen.update(mine)
        if leaked:
            raise DataError(f"{len(leaked)} rows are held out in another split too; remove them from one", leaked)
        return splits

    def _different(self, rows: Sequence[Row]) -> list[Row]:
        kept, self.left_out = deduplicate(rows, self.content, self.label)
        return kept

    def read(self, source: str, progress: Progress = ignore_progress, labelled: bool = True) -> list[Row]:
        """Rows of a catalogue name, file or `datasets:NAME`, each checked against this task; without labels if need be."""
        if source in CATALOGUE:
            path: str | Path = get_source(source, megabytes(f"fetching {source}", progress))
        elif source.startswith("datasets:"):
            path = source
        else:
            path = self.folder / source
            if not path.exists() and "/" not in source and "." not in source:
                raise DataError(f"no data {source!r}: neither in the catalogue{suggest(source, CATALOGUE)} nor a file")
        return read_rows(path, self.check_row if labelled else self._check_any, self.spec.data.columns)

    def _check_any(self, values: dict[str, Any]) -> str | None:
        """Why a row can be neither asked nor, if it has a label, learned from, or None."""
        without = all(values.get(name) in (None, "") for name in self.answer_fields)
        return self.check_input(values) if without else self.check_row(values)

    def check_input(self, values: dict[str, Any]) -> str | None:
        """Why a row cannot be asked, or None: every field that the template reads must be there and hold something."""
        for name in sorted(self.spec.template.fields):
            if name not in values:
                return f"missing field {name!r}{suggest(name, values)}"
            if values[name] is None:
                return f"field {name!r} is null"
        return self.spec.template.problem(values)

    def bind(
        self, tokenizer: Any, room: int, instruction: bool = True, soft: bool = False, closing: bool = False
    ) -> BoundTask:
        """The task with a base's tokenizer.

        Args:
            room: positions that prompt, head, text, cue and answer may take together.
            instruction: whether the template's instruction stands in front.
            soft, closing: whether its soft slots are learned, and the base reads both ways (see `Prompter`).

        Raises:
            ConfigError: the task asks for demonstrations that were not drawn yet (training draws them); see `Prompter`.
        """
        if self.spec.demonstrations.k and not self.spec.demonstrations.rows:
            raise ConfigError(
                f"task {self.name!r} asks for {self.spec.demonstrations.k} demonstrations that are not drawn yet; train "
                "method 'hard' and use its artifact, or give the rows in demonstrations.rows"
            )
        shots = [(values, self.answer_word(values)) for values in self.spec.demonstrations.rows]
        return BoundTask(self, Prompter(self.spec.template, tokenizer, instruction, shots, soft, closing), room)

    def content(self, row: Row) -> str:
        """What makes two rows the same: all fields that the template reads."""
        return "\x1f".join(str(row.values.get(name)) for name in sorted(self.spec.template.fields))

    answer_fields: tuple[str, ...] = ()
    """Fields of a row that hold its answer."""

    def check(self) -> None:  # noqa: B027 - a task type without own rules needs none
        """Raise ConfigError for what only this task type can know to be wrong."""

    @abstractmethod
    def check_row(self, values: dict[str, Any]) -> str | None:
        """Why a labelled row cannot be used, or None."""

    @abstractmethod
    def label(self, row: Row) -> Hashable:
        """What splits are stratified by."""

    @abstractmethod
    def answer_word(self, values: dict[str, Any]) -> str:
        """The text that stands for the row's right answer."""

    @abstractmethod
    def candidates(self, values: dict[str, Any]) -> tuple[list[str], int | None]:
        """The texts of all possible answers of a row, and which is right (None: the row has no label)."""

    @abstractmethod
    def label_scores(self, scores: Tensor, lengths: list[int]) -> Tensor:
        """Candidates' log-likelihoods [C] to normalised log-scores of the labels [K]."""

    @abstractmethod
    def label_name(self, values: dict[str, Any], index: int) -> str:
        """What the k-th label score stands for."""

    @abstractmethod
    def gold_label(self, values: dict[str, Any]) -> str | None:
        """The row's right label, None if it has none."""


class BoundTask:
    """A task with a tokenizer: rows become examples.

    Attributes:
        head, cue, tail: ids that all rows share.
        slots: those of a row, before a method puts its own in: `SLOTS` unless the template has some of its own.
        groups: the template's soft slots where they are learned.
        cut: how many texts had to be truncated so far.
    """

    def __init__(self, task: Task, prompter: Prompter, room: int) -> None:
        self.task, self.prompter = task, prompter
        self.head, self.cue, self.tail = prompter.head, prompter.cue, prompter.tail
        self.groups = prompter.groups
        sizes = {"head": len(self.head), "cue": len(self.cue)}
        self.slots = lay_out(prompter.names, prompter.holes, sizes, bool(self.tail))
        self.room = room - len(self.head) - len(self.cue) - len(self.tail)
        self.cut = 0
        self._answers: dict[str, Ids] = {}

    def example(self, values: dict[str, Any], where: str = "row") -> Example:
        """A row as ids. Too long a text is truncated, never the template.

        Raises:
            DataError: the template alone leaves no room for a text.
        """
        words, gold = self.task.candidates(values)
        candidates = tuple(self.answer(word) for word in words)
        text, holes = (found := self.prompter.row(values, where)).ids, found.holes
        room = self.room - max(len(ids) for ids in candidates)
        if room < 1:
            raise DataError(
                f"{where}: the template, its demonstrations and the prompt leave no room for the text "
                f"({1 - room} tokens too many for this base); shorten them"
            )
        room = min(room, self.task.spec.max_text_tokens or room)
        truncated = len(text) > room
        self.cut += truncated
        kept = text[-room:] if self.prompter.keeps_end else text[:room]
        return Example(kept, candidates, gold, where, values, truncated, tuple(min(hole, room) for hole in holes))

    def examples(self, rows: Sequence[Row]) -> list[Example]:
        """All rows as examples."""
        return [self.example(row.values, row.where) for row in rows]

    def answer(self, word: str) -> Ids:
        """Ids of an answer's text (kept: a task asks for the same few again and again)."""
        if word not in self._answers:
            self._answers[word] = self.prompter.answer(word)
        return self._answers[word]


def ready_tasks() -> dict[str, Path]:
    """Names and files of the tasks that come with the package."""
    return {
        Path(str(item)).stem: Path(str(item))
        for item in sorted(READY.iterdir(), key=str)
        if item.name.endswith(".yaml")
    }
