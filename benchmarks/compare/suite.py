"""The suite file: what is compared, on what, with how much tuning. docs/benchmarks.md shows one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from softprompt.benchmarks.compare.search import SearchSpec
from softprompt.config import Strict, named_file, override, parse, read_yaml, suggest, with_new_keys, yaml_files
from softprompt.methods import make_method
from softprompt.run_reader import beside
from softprompt.runfile import BaseSpec, CacheSpec, TrainSpec, short_form

READY = files("softprompt.benchmarks") / "suites"
Kind = Literal["method", "majority", "tfidf", "setfit"]
USUAL = ("lora", "full")  # what people would do instead
SEARCHED = "train.lr: rates are searched; give `lr: [...]` to a contender, or search.trials: 1"
SETFIT_LR = 2e-5  # SetFit's own default for the encoder


def repeated(values: Sequence[Any]) -> list[Any]:
    """Values that stand there more than once, sorted: a run stands for one."""
    return sorted({value for value in values if values.count(value) > 1})


class ContenderSpec(Strict):
    """One row of the table, or with `vary` several.

    Attributes:
        name: of the row; by default the method's name, with what is varied.
        kind: `method` (anything in `softprompt methods`), `majority` (always the most frequent training answer), or `setfit`
            (Tunstall et al. 2022, a peer; extra `setfit`), or `tfidf` (logistic regression on TF-IDF, a peer).
        method: a method's name, or a mapping with its settings.
        demonstrations: labelled rows in front of every row, drawn anew by each seed; null: those of the task, if it has any.
        vary: settings of the method with several values each; every combination is a row. Of `together: false` one setting
            is varied at a time, the others staying as they are.
        lr: learning rates to try instead of the search's; as many.
        optional: where it cannot run (another kind of base, a package that is not installed) it is left out, and said so,
            rather than failed. The rows that are there unasked are.
        sizes, seeds: instead of the suite's.
        bases: of the suite's, as tables name them, those that it runs on; null: all.
        train: instead of the suite's, key by key.
    """

    name: str = Field(default="", pattern=r"^$|^[A-Za-z0-9][\w.+=-]*$", max_length=60)
    kind: Kind = "method"
    method: dict[str, Any] = Field(default_factory=dict)
    demonstrations: int | None = Field(default=None, ge=0)
    vary: dict[str, Annotated[list[str | int | float | None], Field(min_length=1)]] = Field(default_factory=dict)
    together: bool = True
    lr: list[PositiveFloat] | None = Field(default=None, min_length=1)
    optional: bool = False
    sizes: list[PositiveInt] | None = Field(default=None, min_length=1)
    seeds: list[NonNegativeInt] | None = Field(default=None, min_length=1)
    bases: list[str] | None = Field(default=None, min_length=1)
    train: dict[str, Any] = Field(default_factory=dict)
    family: str = ""
    factors: dict[str, str | int | float | None] = Field(default_factory=dict)

    @field_validator("method", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return short_form(value)

    @field_validator("train")
    @classmethod
    def _today_too(cls, value: dict[str, Any]) -> dict[str, Any]:
        return with_new_keys(TrainSpec, value)

    @model_validator(mode="after")
    def _something(self) -> ContenderSpec:
        if self.kind == "method" and "name" not in self.method:
            raise ValueError("a contender needs a method (or kind: majority, tfidf, setfit)")
        if self.kind == "method" and not isinstance(self.method["name"], str):
            raise ValueError(f"method.name: expected a method's name (got {self.method['name']!r})")
        if self.kind != "method" and (self.demonstrations or "name" in self.method):
            raise ValueError(f"kind: {self.kind} takes no other method and no demonstrations")
        if "name" in self.vary:
            raise ValueError("vary: name is the method itself; give each method a contender of its own")
        for name in ("lr", "sizes", "seeds"):
            if repeated(values := getattr(self, name) or []):
                raise ValueError(f"{name}: a value stands twice in {values}")
        if "lr" in self.train:
            raise ValueError(SEARCHED)
        if not self.name:
            object.__setattr__(self, "name", self.method.get("name", self.kind).replace(":", "-"))
        if not self.family:
            object.__setattr__(self, "family", self.name)
        return self

    @property
    def fits_rows(self) -> bool:
        """Whether it learns from the training rows, so that their number matters."""
        if self.kind != "method":
            return self.kind != "majority"
        return self.method["name"] != "hard" or bool(self.method.get("head"))

    @property
    def default_lr(self) -> float | None:
        """The rate that the grid is laid round; None: nothing is learned by gradients."""
        if self.kind == "method":
            defaults = make_method(self.method).defaults
            return defaults.lr or (defaults.head_lr if self.method.get("head") else None)
        return SETFIT_LR if self.kind == "setfit" else None

    def spread_out(self) -> list[ContenderSpec]:
        """Itself, or one contender for each combination of what is varied."""
        if not self.vary:
            return [self]
        if self.together:
            chosen = [dict(zip(self.vary, values, strict=True)) for values in itertools.product(*self.vary.values())]
        else:
            chosen = [{key: value} for key, values in self.vary.items() for value in values]
        plain = {"vary": {}, "family": self.family}
        return [
            self.model_copy(
                update={
                    **plain,
                    "name": self.name + "".join(f"-{key}={value}" for key, value in choice.items()),
                    "method": {**self.method, **choice},
                    "factors": {**self.factors, **choice},
                }
            )
            for choice in chosen
        ]


class SuiteSpec(Strict):
    """A comparison.

    Attributes:
        bases, tasks: as in a run file; each pair is a table of its own.
        tests: tasks whose test rows are put to what was trained as well (transfer); same fields and labels.
        sizes: training rows. A larger one holds the smaller ones of the same seed.
        dev: rows to choose by: a number, or a share of the training rows (at least 16), as they are labels too.
        test: test rows; null: as the task has it. Of folds: rows in all, each of which is tested once.
        seeds: of runs that are reported: initialisation, order of rows, and with `draws: seeded` the training rows themselves.
        draws: `seeded`: every seed draws its own training rows, so that intervals cover the draw; `fixed`: the task's.
            `folds`: cross-validation. Seed s of k tests fold s of all rows and draws its training rows from the other
            folds. Dev rows are among these; only what learns by gradients sets some aside.
        few_shot: demonstrations of the few-shot row.
        without: of the usual rows (lora, full) those to leave out; majority, zero-shot and few-shot are always there.
        reference: the row that the others are compared with.
        margin: δ of "no worse by more than δ", as a share of the metric's range: 0.02 is 2 points.
        cut: what this suite leaves out, in words for the report.
    """

    version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=40)
    title: str = ""
    bases: list[BaseSpec] = Field(default_factory=lambda: [BaseSpec()], min_length=1)
    tasks: list[str | dict[str, Any]] = Field(min_length=1)
    tests: list[str | dict[str, Any]] = Field(default_factory=list)
    sizes: list[PositiveInt] = Field(default=[256], min_length=1)
    dev: PositiveInt | float = Field(default=0.5, gt=0)
    test: PositiveInt | None = 1000
    seeds: list[NonNegativeInt] = Field(default=[0, 1, 2], min_length=1)
    draws: Literal["seeded", "fixed", "folds"] = "seeded"
    search: SearchSpec = Field(default_factory=SearchSpec)
    train: TrainSpec = Field(default_factory=TrainSpec)
    cache: CacheSpec = Field(default_factory=CacheSpec)
    few_shot: PositiveInt = 8
    without: list[Literal["lora", "full"]] = Field(default_factory=list)
    contenders: list[ContenderSpec] = Field(default_factory=list)
    reference: str = "full"
    margin: float = Field(default=0.02, gt=0, lt=1)
    cut: list[str] = Field(default_factory=list)

    @field_validator("bases", mode="before")
    @classmethod
    def _bases(cls, value: Any) -> Any:
        return [short_form(item) for item in value] if isinstance(value, list) else value

    @field_validator("contenders", mode="before")
    @classmethod
    def _contenders(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        kinds = {kind: {"kind": kind} for kind in ("majority", "tfidf", "setfit")}
        return [kinds.get(item, {"method": item}) if isinstance(item, str) else item for item in value]

    @model_validator(mode="after")
    def _sound(self) -> SuiteSpec:
        rows = self.rows()
        names = [row.name for row in rows]
        if twice := repeated(names):
            raise ValueError(f"contenders: {', '.join(twice)} there twice; give each a name")
        if self.reference not in names:
            raise ValueError(f"reference: no contender {self.reference!r}{suggest(self.reference, names)}")
        for name in ("sizes", "seeds"):
            if repeated(values := getattr(self, name)):
                raise ValueError(f"{name}: a value stands twice in {values}")
        if self.train.lr is not None:
            raise ValueError(SEARCHED)
        for row in rows:
            spec = parse(TrainSpec, {**self.train.model_dump(exclude_none=True), **row.train}, f"{row.name}: train")
            if spec.report_to is not None:
                raise ValueError("train.report_to: a comparison keeps records of its own; leave it out")
            if row.lr and row.default_lr is None:
                raise ValueError(f"{row.name}: lr: nothing of it is learned by gradients; leave it out")
            if row.lr and len(row.lr) != self.search.trials:
                raise ValueError(
                    f"{row.name}: {len(row.lr)} learning rates, but search.trials is {self.search.trials}; "
                    "every method gets the same number"
                )
        if self.search.seed in [*self.seeds, *(seed for row in rows for seed in row.seeds or [])]:
            raise ValueError(f"search.seed {self.search.seed} is among the seeds that are reported; use another")
        if isinstance(self.dev, int) is False and self.dev > 4:
            raise ValueError(f"dev: {self.dev} is a share of the training rows; give rows as a whole number")
        self._check_bases(rows)
        if self.draws == "folds":
            self._check_folds(rows)
        return self

    def _check_bases(self, rows: Sequence[ContenderSpec]) -> None:
        labels = [label_of(base) for base in self.bases]
        for row in rows:
            for name in row.bases or []:
                if name not in labels:
                    raise ValueError(f"{row.name}: bases: the suite has no base {name!r}{suggest(name, labels)}")

    def _check_folds(self, rows: Sequence[ContenderSpec]) -> None:
        if self.seeds != list(range(len(self.seeds))) or len(self.seeds) < 2 or any(row.seeds for row in rows):
            raise ValueError("draws: folds takes seeds: [0, 1, …], one a fold, the same for all contenders")
        if self.search.trials > 1 or self.tests:
            what = "tests" if self.tests else "search.trials above 1"
            raise ValueError(f"draws: folds takes no {what}: rows that are tested would be chosen by")

    def rows(self) -> list[ContenderSpec]:
        """All rows of the table: what is always there, what the suite names, and the usual ones."""
        named = [one for spec in self.contenders for one in spec.spread_out()]
        taken = {row.name for row in named}
        shots = ContenderSpec(
            name=f"{self.few_shot}-shot", method={"name": "hard"}, demonstrations=self.few_shot, optional=True
        )
        always = [
            ContenderSpec(kind="majority"),
            ContenderSpec(name="zero-shot", method={"name": "hard"}, demonstrations=0, optional=True),
            shots,
        ]
        usual = [ContenderSpec(method={"name": name}, optional=True) for name in USUAL if name not in self.without]
        return [
            *(row for row in always if row.name not in taken),
            *named,
            *(row for row in usual if row.name not in taken),
        ]


def label_of(base: BaseSpec) -> str:
    """What a base is called in tables: its name without the folder, and how it is held, if not as usual."""
    held = base.model_dump(mode="json", exclude_defaults=True)
    shown = [str(held[key]) for key in ("dtype", "quantization", "kind") if key in held]
    return "-".join([Path(base.name).name, *shown, *([] if base.isolated else ["together"])])


def load_suite(source: str, assignments: list[str]) -> SuiteSpec:
    """A ready suite by name, or a file; `key=value` overrides. Paths of tasks in a file are relative to it.

    Raises:
        ConfigError: all that is wrong, in one line.
    """
    path = named_file("suite", source, ready_suites())
    suite = parse(SuiteSpec, override(read_yaml(path), assignments), str(path))
    for tasks in (suite.tasks, suite.tests):
        tasks[:] = [beside(path.parent, task) for task in tasks]
    return suite


def ready_suites() -> dict[str, Path]:
    """Names and files of the suites that come with the package."""
    return {name: path for name, path in yaml_files(READY).items() if not name.endswith("-task")}
