"""What every task type shares: its file, its rows, and how it is bound to a base's tokenizer.

A new task type is one file with a `Task` subclass and one line in `registry.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from .. import registry
from ..config import gather, missing, named_file, parse, suggest, yaml_files
from ..data import Duplicates, Row, few_shot, in_memory
from ..errors import ConfigError
from ..metrics import majority
from ..renamed import tell_renamed, with_current_keys
from ..template import RULES
from ..types import Example, Progress, ignore_progress
from ..values import is_blank, not_text, shown
from .file import read_task
from .rows import RowLoader
from .spec import TaskSpec, refuse_demonstrations, refuse_formless, refuse_metric

READY = files("softprompt.tasks") / "ready"


class Task(ABC):
    """A task file, checked. Get one with `Task.load`.

    Attributes:
        Spec: pydantic model of the file.
        form: how rows are answered, by name (see `answers/`): `chosen`, `generated` …
        head_form: how a head answers them; None: a head cannot.
        metrics: names that `metric` may have.
        answer_fields: fields of a row that hold its answer.
        derived: fields that the template may read and the task makes: name → the row's field that it is made from.
        also_read: fields that a row may have beside or instead of those.
        spec: the file's content.
        folder: relative paths in the file are relative to it.
        rules: how rows become ids: 2, or 1 as artifacts of format version 1 were trained.
        several: rows that ask the same may have different right answers.
        left_out: rows that the last `load_data` or `read` left out.
        notices: what a person should know of the last rows that were loaded, a line each.
    """

    Spec: ClassVar[type[TaskSpec]] = TaskSpec
    form: ClassVar[str]
    head_form: ClassVar[str | None] = None
    metrics: ClassVar[tuple[str, ...]]
    answer_fields: tuple[str, ...] = ()
    derived: ClassVar[dict[str, str]] = {}
    also_read: ClassVar[tuple[str, ...]] = ()
    several: ClassVar[bool] = False

    def __init__(self, spec: TaskSpec, folder: Path | None = None, rules: int = RULES) -> None:
        self.spec, self.folder, self.rules = spec, folder or Path(), rules
        self.left_out, self.notices = Duplicates(), list[str]()
        gather(lambda: refuse_metric(spec, self.metrics), self.check)
        if rules > 1:
            refuse_demonstrations(spec, self.check_row)

    @staticmethod
    def load(source: str | Path | dict[str, Any], rules: int = RULES, where: str = "task") -> Task:
        """From a ready name (`movie-reviews`), a YAML file (of a run file its `task:` section), or a mapping.

        Args:
            rules: the format version of the artifact that holds the task, where one does.
            where: stands in front of every problem with a mapping.

        Raises:
            ConfigError: all that is wrong with it, in one line.
        """
        if isinstance(source, dict):
            return Task._make(source, where, Path(), rules)
        path = named_file("task", str(source), ready := ready_tasks())
        data, where = read_task(path)
        is_ready = str(source) in ready
        return Task._make(data, str(source) if is_ready else where, Path() if is_ready else path.parent, rules)

    @staticmethod
    def of_artifact(settings: dict[str, Any], rules: int) -> Task:
        """The task that an artifact holds, also with keys that were renamed since.

        Args:
            rules: the artifact's format version.

        Raises:
            ConfigError: all that is wrong with it, in one line.
        """
        return Task._make(settings, "task", Path(), rules, with_current_keys).settled(earlier=True)

    @staticmethod
    def _make(
        data: dict[str, Any],
        where: str,
        folder: Path,
        rules: int,
        read: Callable[[type[TaskSpec], dict[str, Any]], Any] = lambda model, data: data,
    ) -> Task:
        name = data.get("type", "classification")
        if name not in (known := registry.names("softprompt.tasks")):
            near = suggest(name if isinstance(name, str) else "", known)
            raise ConfigError(f"{where}: type is {shown(name)}, which is no task type{near}")
        kind = registry.find("softprompt.tasks", name)
        refuse_formless(kind, f"{where}: type {name!r}")
        spec = parse(kind.Spec, read(kind.Spec, data), where)
        try:
            return kind(spec, folder, rules)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}", [f"{where}: {one}" for one in error.problems]) from None

    @property
    def name(self) -> str:
        """The task's name."""
        return self.spec.name

    def with_demonstrations(self, rows: Sequence[Row]) -> Task:
        """The same task that carries these rows as its demonstrations."""
        keep = self.fields | set(self.answer_fields) | set(self.derived.values()) | set(self.also_read)
        shots = [{key: value for key, value in row.values.items() if key in keep} for row in rows]
        demonstrations = self.spec.demonstrations.model_copy(update={"k": len(shots), "rows": shots})
        return type(self)(self.spec.model_copy(update={"demonstrations": demonstrations}), self.folder, self.rules)

    def draw_demonstrations(self, rows: Sequence[Row]) -> tuple[Task, list[Row]]:
        """The task with its `demonstrations.k` drawn from the labelled ones of these rows, and the rows that are left.

        The same task and all rows if it asks for none or has them already.

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

    def load_data(
        self, progress: Progress = ignore_progress, labelled: bool = True, rows: Any = None
    ) -> dict[str, list[Row]]:
        """Read, check and split the rows: `train`, `dev`, `test`, disjoint by all that is read. Sets `left_out` and `notices`.

        Args:
            progress: called while a catalogue source is fetched for the first time.
            labelled: every row needs its label.
            rows: in memory, instead of the task's own data: a DataFrame, a `datasets.Dataset`, a list of dicts.

        Raises:
            DataError: every malformed row at once; too few rows; no source.
        """
        loader = RowLoader(self, progress, labelled, None if rows is None else in_memory(rows))
        splits = loader.load()
        self.left_out, self.notices = loader.left_out, loader.notices
        return splits

    def read(self, source: str, progress: Progress = ignore_progress, labelled: bool = True) -> list[Row]:
        """Rows of a catalogue name, file or `datasets:NAME`, each checked against this task; without labels if need be."""
        loader = RowLoader(self, progress, labelled)
        rows = loader.read(source)
        told = [f"left out: {loader.left_out}"] if loader.left_out else []
        self.left_out, self.notices = loader.left_out, [*told, *loader.notices]
        return rows

    def check_any(self, values: dict[str, Any]) -> str | None:
        """Why a row cannot be used, or None. A row without a label only needs its inputs."""
        return self.check_input(values) if self.unlabelled(values) else self.check_row(values)

    def unlabelled(self, values: dict[str, Any]) -> bool:
        """Whether a row has no answer at all."""
        return all(values.get(name) is None or values.get(name) == "" for name in self.answer_fields)

    def check_input(self, values: dict[str, Any]) -> str | None:
        """Why a row cannot be asked, or None: every field that the template reads must be there, and be what it can read."""
        fields = sorted(self.fields)
        if lacking := [[name] for name in fields if name not in values]:
            return missing("field", lacking, map(str, values))
        for name in fields:
            # artifacts of format 1 were trained on what Python makes of lists and objects
            problem = self.spec.template.field_problem(name, values[name]) if self.rules > 1 else None
            if problem is not None or not_text(values[name]) in ("null", "NaN"):
                return problem or f"field {name!r} is {not_text(values[name])}"
        if all(self._is_empty(values[name]) for name in fields):
            names = ", ".join(map(repr, fields))
            return f"field {names} is empty" if len(fields) == 1 else f"all fields that are read ({names}) are empty"
        return self.spec.template.problem({**dict.fromkeys(self.derived, "…"), **values}, tried=self.rules > 1)

    def _is_empty(self, value: Any) -> bool:
        if isinstance(value, str):
            return is_blank(value) if self.rules > 1 else not value.strip()
        return isinstance(value, (list, tuple, dict)) and not value

    def bind(self, tokenizer: Any, room: int, **how: Any) -> Any:
        """The form of the task's answers with a tokenizer: `AnswerForm.of`, under its earlier name for one more version."""
        tell_renamed("Task.bind is now softprompt.prepared.bind(base, task, method)")
        return registry.find("softprompt.answers", self.form).of(self, tokenizer, room, **how)

    def content(self, row: Row) -> str:
        """Everything that is read of a row. Rows of equal content differ at most in their answers."""
        return "\x1f".join(str(row.values.get(name)) for name in sorted(self.fields))

    def remarks(self, splits: Mapping[str, Sequence[Row | Example]]) -> list[tuple[str, str]]:
        """What is odd about the rows, and what to do; doctor shows it as a warning."""
        return []

    @property
    def fields(self) -> set[str]:
        """Fields of a row that the template needs."""
        return {self.derived.get(name, name) for name in self.spec.template.fields}

    @property
    def only_field(self) -> str | None:
        """The only field that the template reads, so that a row may be a plain text; else None."""
        names = sorted(self.spec.template.fields)
        return names[0] if len(names) == 1 else None

    @property
    def words(self) -> list[str]:
        """The words of the answers if all rows have the same; else empty."""
        return []

    def shown(self, values: dict[str, Any]) -> dict[str, Any]:
        """A row's fields, and those that the task derives for the template."""
        return values

    def floor(self, metric: str, rows: Sequence[dict[str, Any]]) -> tuple[float, str]:
        """The metric of a trivial baseline, and what that baseline is."""
        gold = [answer for values in rows if (answer := self.gold(values)) is not None]
        return majority(metric, gold), "always the most frequent answer"

    @property
    def ways(self) -> list[str]:
        """Ways of comparing candidates; the best on dev is chosen before training. Empty if there is no choice."""
        return []

    def scored_by(self, way: str) -> Task:
        """The same task with one of its `ways`."""
        return self

    def settled(self, earlier: bool = False) -> Task:
        """With all that an artifact must record; `earlier`: as versions meant it that did not. By default unchanged."""
        return self

    @property
    def evaluates_metric(self) -> bool:
        """Whether dev evaluations in training compute the metric, although they must generate answers for it."""
        return False

    @property
    def longest_answer(self) -> int:
        """Tokens that a written answer may have; 0 where none is written."""
        return 0

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
        """The answer, by which rows are grouped."""

    def strata(self, rows: Sequence[Row]) -> Callable[[Row], Hashable]:
        """What a split of these rows is stratified by."""
        return self.label

    def answer(self, row: Row) -> Hashable:
        """The key by which rows of equal content contradict each other, unless several answers may be right."""
        return self.label(row)

    @abstractmethod
    def candidates(self, values: dict[str, Any]) -> tuple[list[str], int | None]:
        """Texts of a row's possible answers (free: the right one alone), and the right one's index or None."""

    @abstractmethod
    def gold(self, values: dict[str, Any]) -> Any:
        """What the metric compares an answer with: a label, or a list of texts; None if the row has no answer."""


def ready_tasks() -> dict[str, Path]:
    """Names and files of the tasks that come with the package."""
    return yaml_files(READY)
