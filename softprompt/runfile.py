"""The run file: which base, task and method, how it is trained, where encoded rows are kept. An edge, as `config.py` is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from .base import Base
from .base.bundled import local_source
from .base.shape import DTYPES
from .config import Strict, parse
from .engine import CacheConfig
from .errors import ConfigError
from .methods import Method
from .parallel import processes
from .types import Progress, ignore_progress
from .values import kind, shown

Seed = Annotated[int, Field(ge=-(2**42), lt=2**42)]  # each epoch's own is made of it, and has 64 bits
TEMPERATURE = 0.1  # of the contrastive objective, as in Khosla et al. 2020 (measured here: benchmarks/LOG.md)
TrackerName = Literal["tensorboard", "trackio", "wandb", "mlflow"]


class TrainSpec(Strict):
    """How a method is trained. What is left out (null) has the method's own default.

    Attributes:
        lr: highest learning rate; prompts need 100–1000 times that of weights.
        epochs: passes over the training rows. If it is left out, some methods make more passes when rows are few.
        max_steps: optimizer steps at most.
        min_steps: optimizer steps at least; if rows are few, there are more epochs (null: the method's own if `epochs`
            is null).
        batch_size: rows in an optimizer step.
        micro_batch: rows in one forward (of each process). Gradients add up to `batch_size`: same result, less memory.
        schedule: how the learning rate falls: `linear`, `cosine` or `constant`.
        warmup: fraction of the steps in which it first rises.
        weight_decay: AdamW's, for the learned parameters.
        word_dropout: fraction of a text's tokens that a step reads as the mask token, so that words are not learned by
            heart (Kondratyuk & Straka 2019, arXiv:1904.02099, §3.3). Only on bidirectional bases with a mask token;
            null: 0.15 where a task tags words there, else none.
        objective: `contrastive` draws rows of one label together and rows of others apart (Khosla et al. 2020,
            arXiv:2004.11362); a logistic regression on their states answers. Encoder bases and classification only;
            null: the loss of the right answers.
        temperature: what `contrastive` divides cosines by; null: 0.1.
        clip: largest gradient norm.
        optimizer: `adamw`; or `adafactor` or `adamw8bit`, which need less memory (for full fine-tuning).
        autocast: `bf16` runs matrix products in bf16, in training and evaluation. Weights keep their type.
        gradient_checkpointing: compute each layer again in the backward instead of keeping its activations: less
            memory, more time.
        eval_every: optimizer steps between two dev evaluations (null: half an epoch, or more where epochs are short).
        keep: which parameters a run ends with: `best`, those of the best dev evaluation; `last`, those of the last step;
            or `average`, the mean of those at the dev evaluations of the second half of the steps (Izmailov et al.
            2018, arXiv:1803.05407). null: `best` if there are dev rows, else `last`.
        patience: stop after this many dev evaluations without an improvement; only where the best one is kept.
        target: stop when the lower bound of the dev metric's 95 % interval reaches this.
        report_to: `tensorboard`, `trackio`, `wandb` or `mlflow`, or a list of them: where the run is shown while it
            trains. Each needs the extra of its name. It changes nothing in the run, and is not part of the run's
            identity.
    """

    model_config = ConfigDict(allow_inf_nan=False)
    renamed: ClassVar[dict[str, str]] = {"checkpointing": "gradient_checkpointing"}

    lr: PositiveFloat | None = None
    epochs: PositiveInt | None = None
    max_steps: PositiveInt | None = None
    min_steps: PositiveInt | None = None
    batch_size: PositiveInt | None = None
    micro_batch: PositiveInt | None = None
    schedule: Literal["linear", "cosine", "constant"] | None = None
    warmup: float | None = Field(default=None, ge=0, lt=1)
    weight_decay: NonNegativeFloat | None = None
    word_dropout: float | None = Field(default=None, ge=0, lt=1)
    objective: Literal["contrastive"] | None = None
    temperature: PositiveFloat | None = None
    clip: PositiveFloat = 1.0
    optimizer: Literal["adamw", "adafactor", "adamw8bit"] = "adamw"
    autocast: Literal["bf16"] | None = None
    gradient_checkpointing: bool = False
    eval_every: PositiveInt | None = None
    keep: Literal["best", "last", "average"] | None = None
    patience: PositiveInt = 4
    target: float | None = Field(default=None, gt=-1, le=1)
    report_to: TrackerName | list[TrackerName] | None = None

    @model_validator(mode="after")
    def _temperature_is_for_contrast(self) -> TrainSpec:
        if self.temperature is not None and self.objective != "contrastive":
            raise ValueError("temperature is for objective: contrastive; set that, or leave it out")
        return self

    @property
    def trackers(self) -> list[TrackerName]:
        """The names in `report_to`, each once."""
        return list(dict.fromkeys([self.report_to] if isinstance(self.report_to, str) else self.report_to or []))

    def filled(self, method: Method, rows: int, part_of: int | None = None) -> TrainSpec:
        """With every null replaced by the method's default for this many training rows.

        Args:
            part_of: number of all rows, if these are a part of them; they then get their share of the steps. Null:
                these are all.
        """
        if part_of is not None and part_of > rows:
            whole = self.filled(method, part_of)
            assert whole.max_steps is not None
            return self.model_copy(update={"max_steps": -(-whole.max_steps * rows // part_of)}).filled(method, rows)
        defaults = method.defaults
        names = ("lr", "epochs", "batch_size", "schedule", "warmup", "weight_decay")
        values = {name: getattr(defaults, name) for name in names if getattr(self, name) is None}
        if "batch_size" in values and self.epochs is None:
            values["batch_size"] = defaults.batch_for(rows)
        if not values.get("lr", self.lr):
            values.pop("lr", None)  # a method without a gradient has no learning rate
        if self.word_dropout is None and defaults.word_dropout:
            values["word_dropout"] = defaults.word_dropout
        if self.objective == "contrastive" and self.temperature is None:
            values["temperature"] = TEMPERATURE
        full = self.model_copy(update=values)
        assert full.batch_size is not None and full.epochs is not None
        steps = max(1, -(-rows // full.batch_size))  # of one epoch
        least = self.min_steps or (defaults.min_steps if self.epochs is None else 0)
        epochs = max(full.epochs, -(-least // steps))
        more = {
            "epochs": epochs,
            "max_steps": min(self.max_steps or steps * epochs, steps * epochs),
            "eval_every": self.eval_every or max(1, steps // 2, least // (2 * defaults.epochs)),
            "micro_batch": min(self.micro_batch or full.batch_size, full.batch_size),
        }
        return full.model_copy(update=more)


class CacheSpec(Strict):
    """Where encoded rows are kept.

    Attributes:
        dtype: null keeps the base's own type (exact); `bf16` or `fp16` halve the bytes for an fp32 base.
        ram_gb, disk_gb: limits in GB, for each process; disk is used when RAM is full.
        keep: leave the encoded rows on disk for the next run with the same base, task and text before the rows.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    dtype: Literal["fp32", "bf16", "fp16"] | None = None
    ram_gb: NonNegativeFloat = 4.0
    disk_gb: NonNegativeFloat = 50.0
    keep: bool = False

    def config(self, part: str = "") -> CacheConfig:
        """For the engine; `part` names the shard of one of several processes."""
        dtype = DTYPES[self.dtype] if self.dtype else None
        return CacheConfig(dtype, int(self.ram_gb * 1e9), int(self.disk_gb * 1e9), self.keep, part)


class BaseSpec(Strict):
    """Which base, in which number format, and where it runs.

    Attributes:
        name: bundled name, folder, GGUF file or hub id; `auto` chooses.
        dtype: type of the base's weights.
        device: `cpu`, `cuda`, `cuda:1` …; `auto` uses a GPU if there is one.
        quantization: `int8` or `nf4` store the linear layers' weights in 8 or 4 bits (needs the extra `quant`). `dtype`
            is then the type of everything else.
        kind: `causal`, `masked`, `encoder` or `seq2seq`, for a checkpoint that can run as several of them. Null: what
            its config says.
        isolated: with int8, rows never depend on the other rows of a batch. `false` uses bitsandbytes' own int8, where
            they do.
    """

    name: str = Field(default="smollm2", min_length=1)
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: str = "auto"
    quantization: Literal["int8", "nf4"] | None = None
    isolated: bool = True
    kind: Literal["causal", "masked", "encoder", "seq2seq"] | None = None

    @model_validator(mode="after")
    def _isolated_is_for_int8(self) -> BaseSpec:
        if not self.isolated and self.quantization != "int8":
            raise ValueError(
                "isolated: false is for quantization: int8; on all other bases rows never depend on each other"
            )
        return self

    def load(self, progress: Progress = ignore_progress) -> Base:
        """The base, loaded as the section says; see `Base.load` for what is refused.

        Raises:
            ConfigError: it is `auto`.
        """
        if self.name == "auto":
            raise ConfigError(
                "base: auto chooses in `softprompt train` and PromptClassifier; here name one, e.g. smollm2"
            )
        # what must be fetched one of several processes fetches for all
        processes().first(local_source, self.name, progress)
        return Base.load(self.name, self.dtype, self.device, progress, self.quantization, self.isolated, self.kind)


class RunSpec(Strict):
    """The run file.

    Attributes:
        base, method: a name, or a mapping with `name` and settings.
        task: a ready task's name, a file, or the task itself.
        train: how it is trained. What is left out has the method's own default.
        cache: where encoded rows are kept.
        seed: for the initialisation and the order of rows. Splits and demonstrations have seeds of their own in the
            task.
    """

    base: BaseSpec = Field(default_factory=BaseSpec)
    task: str | dict[str, Any] = Field(examples=["movie-reviews"])
    method: dict[str, Any] = Field(examples=["infix"])
    train: TrainSpec = Field(default_factory=TrainSpec, examples=[{}])
    cache: CacheSpec = Field(default_factory=CacheSpec)
    seed: Seed = 0

    @field_validator("base", "method", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return short_form(value)

    @field_validator("task", mode="before")
    @classmethod
    def _name_or_mapping(cls, value: Any) -> Any:
        if not isinstance(value, (str, dict)):
            raise ValueError(
                f"expected a ready task's name, a file, or the task itself as a mapping (got {shown(value)})"
            )
        return value


class _Given(Strict):
    seed: Seed


def check_seed(seed: Any) -> int:
    """A seed that was given in Python.

    Raises:
        ConfigError: it is none.
    """
    return parse(_Given, {"seed": seed}, "train()").seed


def base_section(given: Any) -> BaseSpec:
    """The section of a base that is given by its name, its folder or the section itself.

    Raises:
        ConfigError: something else, or settings of a base that there are not.
    """
    section = short_form(str(given) if isinstance(given, Path) else given)
    if not isinstance(section, Mapping):
        raise ConfigError(f"base is {kind(given)}; expected a name such as smollm2, a folder or a Base")
    return parse(BaseSpec, dict(section), "base")


def short_form(value: Any) -> Any:
    """A name alone stands for a mapping with that name."""
    return {"name": value} if isinstance(value, str) else value
