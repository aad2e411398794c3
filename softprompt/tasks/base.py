"""What every task type shares: its file, its rows, and how it is bound to a base's tokenizer.

A new task type is one file with a `Task` subclass and one line in `registry.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal

from .. import registry
from ..config import named_file, parse, read_yaml, suggest, yaml_files
from ..data import CATALOGUE, Row, get_source, read_rows
from ..data.splits import Duplicates, apart, deduplicate, few_shot, hold_out, refuse_leaks, split
from ..errors import ConfigError, DataError
from ..metrics import majority
from ..template import RULES, Prompter
from ..types import Progress, ignore_progress, megabytes
from .bound import BoundTask
from .spec import TaskSpec

READY = files("softprompt.tasks") / "ready"


class Task(ABC):
    """A task file, checked. Get one with `Task.load`.

    Attributes:
        Spec: pydantic model of the file.
        answering: how rows are answered: the best of their candidates is taken (`scored`), or text is written (`generated`).
        metrics: names that `metric` may have.
        answer_fields: fields of a row that hold its answer.
        derived: fields that the template may read and the task makes: name → the row's field that it is made from.
        spec: the file's content.
        folder: relative paths in the file are relative to it.
        rules: how rows become ids: 2, or 1 as artifacts of format version 1 were trained.
        left_out: duplicates, and rows too near to held-out ones, that the last `load_data` left out.
    """

    Spec: ClassVar[type[TaskSpec]] = TaskSpec
    answering: ClassVar[Literal["scored", "generated"]]
    metrics: ClassVar[tuple[str, ...]]
    answer_fields: tuple[str, ...] = ()
    derived: ClassVar[dict[str, str]] = {}

    def __init__(self, spec: TaskSpec, folder: Path | None = None, rules: int = RULES) -> None:
        self.spec, self.folder, self.rules = spec, folder or Path(), rules
        self.left_out = Duplicates(0, 0)
        if spec.metric not in self.metrics:
            raise ConfigError(
                f"metric {spec.metric!r} does not fit type {spec.type!r}{suggest(spec.metric, self.metrics)}"
            )
        self.check()

    @staticmethod
    def load(source: str | Path | dict[str, Any], rules: int = RULES) -> Task:
        """From a ready name (`movie-reviews`), a YAML file, or a mapping.

        Args:
            rules: the format version of the artifact that holds the task, where one does.

        Raises:
            ConfigError: all that is wrong with it, in one line.
        """
        if isinstance(source, dict):
            return Task._make(source, "task", Path(), rules)
        path = named_file("task", str(source), ready := ready_tasks())
        if str(source) in ready:
            return Task._make(read_yaml(path), str(source), Path(), rules)
        return Task._make(read_yaml(path), str(path), path.parent, rules)

    @staticmethod
    def _make(data: dict[str, Any], where: str, folder: Path, rules: int) -> Task:
        kind = registry.find("softprompt.tasks", str(data.get("type", "classification")))
        spec = parse(kind.Spec, data, where)
        try:
            return kind(spec, folder, rules)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    @property
    def name(self) -> str:
        """The task's name."""
        return self.spec.name

    def with_demonstrations(self, rows: Sequence[Row]) -> Task:
        """The same task that carries these rows as its demonstrations."""
        keep = self.fields | set(self.answer_fields) | set(self.derived.values())
        shots = [{key: value for key, value in row.values.items() if key in keep} for row in rows]
        demonstrations = self.spec.demonstrations.model_copy(update={"k": len(shots), "rows": shots})
        return type(self)(self.spec.model_copy(update={"demonstrations": demonstrations}), self.folder, self.rules)

    def draw_demonstrations(self, rows: Sequence[Row]) -> tuple[Task, list[Row]]:
        """The task with its `demonstrations.k` drawn from the labelled ones of these rows, and the rows that are left.

        As it is, with all rows, where it asks for none or carries them already.

        Raises:
            DataError: fewer labelled rows than demonstrations.
        """
        wanted = self.spec.demonstrations
        if not wanted.k or wanted.rows:
            return self, list(rows)
        labelled = [row for row in rows if self.gold(row.values) is not None]
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
        if separate and data.hold_out is not None:
            raise ConfigError(
                f"task {self.name!r}: data.hold_out takes test rows from data.source; with files of their own, give data.test"
            )
        sizes = {name: getattr(data.split, name) for name in ("train", "dev", "test")}
        if data.source is not None:
            return self._cut(self.read(data.source, progress, labelled), sizes)
        found = {name: self.read(path, progress, labelled) for name, path in separate.items()}
        if "train" in found and "dev" not in found:
            rows = self._different(found["train"])
            size = min(sizes["dev"] or 256, len(rows) // 5) if not isinstance(sizes["dev"], float) else sizes["dev"]
            found |= split(rows, {"dev": size, "train": None}, self.label, data.split.seed, data.split.group)
        splits = {name: found.get(name, []) for name in ("test", "dev", "train")}
        refuse_leaks(splits, self.content)
        return splits

    def _cut(self, rows: Sequence[Row], sizes: dict[str, int | float | None]) -> dict[str, list[Row]]:
        """The splits of the rows of one source; held-out ones before anything is left out, so that they are all there."""
        cut, held = self.spec.data.split, self.spec.data.hold_out
        if held is None:
            return split(self._different(rows), sizes, self.label, cut.seed, cut.group)
        tests, others = hold_out(rows, held.field, held.values)
        tests, others, self.left_out = apart(tests, others, self.content, self.label, cut.group)
        wanted = sizes.pop("test")
        if isinstance(wanted, int) and wanted > len(tests):
            raise DataError(
                f"data.split.test asks for {wanted} rows, data.hold_out keeps {len(tests)}; ask for fewer, or null for all"
            )
        size = {"test": wanted}  # groups are apart from the others already, so a sample may cut them
        return split(others, sizes, self.label, cut.seed, cut.group) | split(tests, size, self.label, cut.seed)

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
        for name in sorted(self.fields):
            if name not in values:
                return f"missing field {name!r}{suggest(name, values)}"
            if values[name] is None:
                return f"field {name!r} is null"
        return self.spec.template.problem(values)

    def bind(
        self,
        tokenizer: Any,
        room: int,
        instruction: bool = True,
        soft: bool = False,
        closing: bool = False,
        writes: int | None = None,
        base_ends: Sequence[int] = (),
    ) -> BoundTask:
        """The task with a base's tokenizer.

        Args:
            room: positions that prompt, head, text, cue and (without `writes`) answer may take together.
            instruction: whether the template's instruction stands in front.
            soft, closing: whether its soft slots are learned, and texts are read both ways (see `Prompter`).
            writes: tokens that a decoder has room for, where one writes the answer (see `lay_out`).
            base_ends: tokens that the base says end a text.

        Raises:
            ConfigError: the task asks for demonstrations that were not drawn yet (training draws them); see `Prompter`.
        """
        if self.spec.demonstrations.k and not self.spec.demonstrations.rows:
            raise ConfigError(
                f"task {self.name!r} asks for {self.spec.demonstrations.k} demonstrations that are not drawn yet; train "
                "method 'hard' and use its artifact, or give the rows in demonstrations.rows"
            )
        shots = [(self.shown(values), self.answer_word(values)) for values in self.spec.demonstrations.rows]
        how = (instruction, shots, soft, closing, self.rules, base_ends, max(10_000, 10 * room))  # in characters
        prompter = Prompter(self.spec.template, tokenizer, *how)
        return BoundTask(self, prompter, room, writes)

    def content(self, row: Row) -> str:
        """What makes two rows the same: all fields that the template reads."""
        return "\x1f".join(str(row.values.get(name)) for name in sorted(self.fields))

    @property
    def fields(self) -> set[str]:
        """Fields of a row that the template needs."""
        return {self.derived.get(name, name) for name in self.spec.template.fields}

    @property
    def words(self) -> list[str]:
        """What answers are made of where all rows have the same; else nothing."""
        return []

    def shown(self, values: dict[str, Any]) -> dict[str, Any]:
        """A row's fields with those that the task makes for the template."""
        return values

    def floor(self, metric: str, rows: Sequence[dict[str, Any]]) -> tuple[float, str]:
        """What the metric gives to whoever has learned nothing, and who that is."""
        gold = [answer for values in rows if (answer := self.gold(values)) is not None]
        return majority(metric, gold), "always the most frequent answer"

    def weight(self, tokens: int) -> int:
        """A row's share in the mean loss of a step: the tokens of its answer."""
        return tokens

    @property
    def writes_in_looks(self) -> bool:
        """Whether looks at dev in training take the metric although answers are written for it."""
        return False

    @property
    def longest_answer(self) -> int:
        """Tokens that a written answer may have; 0 where none is written."""
        return 0

    @property
    def stops(self) -> Sequence[str]:
        """Texts before which a written answer ends."""
        return ()

    def answer_word(self, values: dict[str, Any]) -> str:
        """The text that stands for the row's right answer.

        Raises:
            ConfigError: it has none.
        """
        words, gold = self.candidates(values)
        if gold is None:
            fields = ", ".join(map(repr, self.answer_fields))
            raise ConfigError(f"task {self.name!r}: a demonstration has no right answer in {fields}")
        return words[gold]

    def check(self) -> None:  # noqa: B027 - a task type without own rules needs none
        """Raise ConfigError for what only this task type can know to be wrong."""

    @abstractmethod
    def check_row(self, values: dict[str, Any]) -> str | None:
        """Why a labelled row cannot be used, or None."""

    @abstractmethod
    def label(self, row: Row) -> Hashable:
        """What splits are stratified by."""

    @abstractmethod
    def candidates(self, values: dict[str, Any]) -> tuple[list[str], int | None]:
        """The texts of all possible answers of a row, and which is right (None: the row has no answer).

        Of a free answer there is one, the right one, or none.
        """

    @abstractmethod
    def gold(self, values: dict[str, Any]) -> Any:
        """What the metric compares an answer with: a label, or a list of texts; None if the row has no answer."""


def ready_tasks() -> dict[str, Path]:
    """Names and files of the tasks that come with the package."""
    return yaml_files(READY)
