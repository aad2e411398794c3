"""The contract of a method: what is learned, where it stands, what is saved.

A new method is one file with a `Method` subclass, and one registration: a line in `registry.py`. A package of its own
registers an entry point in the group `softprompt.methods` instead. The core never asks which method it runs.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import registry
from ..base import Base
from ..config import parse
from ..engine import NOTHING, BatchOutput, Engine, Learned, Slot
from ..errors import ArtifactError, ConfigError
from ..tasks import BoundTask, Task
from ..types import Example, Progress, ignore_progress
from .defaults import TrainDefaults as TrainDefaults
from .means import mean_tensors
from .retired import refuse_retired
from .spec import MethodSpec as MethodSpec
from .spec import Place as Place
from .spec import Stores as Stores

WHOLE = 40  # see `text_ids`; on movie-reviews once (30 tokens) was a point behind twice


class Method(ABC):
    """What is learned and where it enters.

    Attributes:
        title: one line for `softprompt methods`.
        Spec: pydantic model of the settings.
        defaults: how it is trained unless the user says otherwise.
        stores: what its tensors are: `embeddings`, `kv`, `head`, `weights`, `other` (only the method knows) or `none`.
        place: where they stand: `front` of the text, `infix` (between text and answer), `other` or `none`.
        first_layer: nothing that it learns acts in the layers below this one.
        trains_whole_model: every weight of a model is trained; `learned().base` holds it.
        averaged: a classifier reads the mean of a row's states, so other defaults may fit; set before all else.
        learns_slots: it learns the template's soft slots; other methods read them as the texts they have.
        answers: how many answers its own classifier has, once there is one.
        may_be_zero: its tensors may all be zero, as updates are before they are trained.
        factors: its tensors are factors: their mean is not that of what they do (see `mean_of`).
        refits: `solve` is also called of what was trained, before each dev evaluation and at the end.
        sums_over_tokens: whether `score` sums over an answer's tokens, so that the task may divide by their number.
    """

    title: ClassVar[str]
    Spec: ClassVar[type[MethodSpec]] = MethodSpec
    defaults: ClassVar[TrainDefaults] = TrainDefaults()
    stores: Stores = "none"
    place: Place = "none"
    first_layer: int = 0
    trains_whole_model: bool = False
    averaged: bool = False
    learns_slots: bool = False
    answers: int | None = None
    may_be_zero: bool = False
    factors: ClassVar[bool] = False
    refits: ClassVar[bool] = False
    sums_over_tokens: ClassVar[bool] = True

    def __init__(self, spec: MethodSpec) -> None:
        self.spec = spec

    def settle(self, base: Base) -> None:  # noqa: B027 - most settings do not depend on the base
        """Settle what the settings leave to the base, before anything else is asked; ConfigError for what it cannot do."""

    @property
    def keeps_instruction(self) -> bool:
        """Whether the task's instruction stands in front: as the settings say, else unless a head averages over it."""
        asked: bool | None = getattr(self.spec, "instruction", None)
        return not self.averaged if asked is None else asked

    @property
    def length(self) -> int:
        """Learned tokens P."""
        return 0

    @property
    def positions(self) -> int:
        """Positions of the base's context that they take."""
        return self.length

    def segments(self, slots: Sequence[Slot], cue: int) -> tuple[Slot, ...]:
        """The row's slots with the learned one inserted.

        Args:
            slots: `BoundTask.slots`; where the template's soft slots are learned, they are among them.
            cue: how many tokens the cue has.
        """
        return tuple(slots)

    def attach(self, base: Base, bound: BoundTask, seed: int) -> None:  # noqa: B027 - nothing to make is a valid method
        """Create and initialise the trainable parameters. Write into `spec` what `restore` must know of the task."""

    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer moves; empty when nothing is trained by gradients."""
        return []

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """The parameters in groups, each with the factor of its learning rate."""
        return [(self.parameters(), 1.0)]

    def may_lack_gradient(self) -> list[nn.Parameter]:
        """Parameters that some rows do not use, so that a zero gradient on a few rows is no fault."""
        return []

    def learned(self) -> Learned:
        """What it brings to this step: finished segments by slot name, and the base that live tokens run through."""
        return NOTHING

    def training(self) -> contextlib.AbstractContextManager[object]:
        """Context of a training step's forward and backward, for what acts only in training (dropout)."""
        return contextlib.nullcontext()

    def solve(  # noqa: B027 - most methods learn by gradients
        self,
        engine: Engine,
        train: Sequence[Example],
        dev: Sequence[Example],
        task: Task,
        seed: int,
        progress: Progress = ignore_progress,
    ) -> None:
        """Learn in closed form. Called once instead of the loop when there are no parameters; see `refits`."""

    def score(self, batch: BatchOutput, candidates: Sequence[Sequence[tuple[int, ...]]]) -> list[Tensor]:
        """Log-score of every candidate of every row of contexts, per row [C]; by default the base's own likelihood."""
        return batch.score(candidates)

    def classify(self, batch: BatchOutput) -> Tensor:
        """Logits [B, K] of its own classifier, for contexts that have run.

        Raises:
            ConfigError: it has no classifier.
        """
        raise ConfigError(f"method {self.spec.name!r} brings no classifier; set method.head: true")

    def bound_to(self, bound: BoundTask) -> None:  # noqa: B027 - most methods say nothing of their task
        """Take from the task what `adapter_config` names. `attach` calls it; of what is restored, whoever saves it again."""

    def mean_of(self, members: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
        """Tensors for the mean of what several have learned with these settings; it may write into `spec`, which is saved.

        Args:
            members: what each one's `export` gave, in the same shapes.
            weights: of each; their sum is 1.

        Raises:
            ConfigError: no tensors stand for that mean.
        """
        if self.factors:
            raise ConfigError(
                f"method {self.spec.name!r} learns factors, and their mean is not that of what they do; use softprompt ensemble"
            )
        return mean_tensors(members, weights)

    def layout(self) -> dict[str, Any]:
        """How its tensors are read back, for the manifest."""
        return {"stores": self.stores, "place": self.place, "length": self.length}

    def export(self) -> dict[str, Tensor]:
        """The finished tensors by name, and only these, in fp32 on the CPU."""
        return {}

    def restore(self, tensors: dict[str, Tensor], base: Base) -> None:
        """Load what `export` gave.

        Raises:
            ArtifactError: tensors of another shape than this base needs.
        """
        if tensors:
            raise ArtifactError(f"method {self.spec.name!r} stores no tensors, the artifact holds {sorted(tensors)}")

    def adapter_config(self, base: Base) -> dict[str, Any] | None:
        """PEFT's `adapter_config.json` where PEFT can load the artifact, else None."""
        return None

    def files(self) -> dict[str, bytes]:
        """Files that make the artifact a plain transformers model (`config.json`, tokenizer), where its tensors are one."""
        return {}

    def merged(self, base: Base) -> Any:
        """A plain transformers model with what was learned in its weights; `base` stays as it is.

        Raises:
            ConfigError: what was learned does not lie in weights, or cannot be merged.
        """
        raise ConfigError(
            f"method {self.spec.name!r} cannot be merged into the base's weights; serve its artifact instead"
        )


class LearnedTensor(Method):
    """A method whose whole state is one tensor that is also its segment: embeddings or K/V.

    The tensor is a parameter, or in training the output of an encoder.

    Attributes:
        key: the tensor's name in the artifact: `infix_kv` of K/V between text and answer, else `prompt_embeddings`.
    """

    key: ClassVar[str] = "prompt_embeddings"
    _value: nn.Parameter | None = None
    _encoder: nn.Module | None = None

    def make(self, value: Tensor) -> None:
        """Set the parameter (fp32: learned tensors stay precise under a bf16 base)."""
        self._value, self._encoder = nn.Parameter(value.detach().float().clone()), None

    def make_from(self, encoder: nn.Module) -> None:
        """Let the tensor be what `encoder()` gives; only that is exported."""
        self._value, self._encoder = None, encoder

    @property
    def value(self) -> Tensor:
        """The tensor, with gradients.

        Raises:
            RuntimeError: `attach` or `restore` was not called.
        """
        found = self._value if self._encoder is None else self._encoder()
        if found is None:
            raise RuntimeError(f"{type(self).__name__} is not attached to a base yet")
        return found

    def parameters(self) -> list[nn.Parameter]:
        """The one parameter, or the encoder's."""
        if self._encoder is not None:
            return list(self._encoder.parameters())
        return [] if self._value is None else [self._value]

    def learned(self) -> Learned:
        """The one tensor."""
        return Learned({"prompt": self.value})

    def export(self) -> dict[str, Tensor]:
        """The tensor under its key."""
        return {self.key: self.value.detach().float().cpu().contiguous()}

    def restore(self, tensors: dict[str, Tensor], base: Base) -> None:
        """Take the tensor back after checking its shape."""
        if set(tensors) != {self.key}:
            raise ArtifactError(f"method {self.spec.name!r} stores {self.key!r}, the artifact holds {sorted(tensors)}")
        self._take(tensors[self.key], base)

    def _take(self, value: Tensor, base: Base) -> None:
        want = self.shape(base)
        if tuple(value.shape) != want:
            raise ArtifactError(f"{self.key} has shape {list(value.shape)}, this base needs {list(want)}")
        self.make(value.to(base.device))

    @abstractmethod
    def shape(self, base: Base) -> tuple[int, ...]:
        """Shape of the tensor on this base."""


def make_method(settings: str | dict[str, Any], where: str = "method") -> Method:
    """A method by name, or by a mapping with `name` and its settings.

    Raises:
        ConfigError: unknown method or setting, with the nearest known one; a method that defines a retired hook.
    """
    data = {"name": settings} if isinstance(settings, str) else settings
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        raise ConfigError(f"{where}: missing key 'name' (known: {', '.join(registry.names('softprompt.methods'))})")
    if data["name"] == "auto":
        raise ConfigError(
            f"{where}: auto chooses in `softprompt train` and PromptClassifier; here name one, e.g. infix"
        )
    kind: type[Method] = registry.find("softprompt.methods", data["name"].partition(":")[0])  # `peft:IA3`
    refuse_retired(kind, data["name"])
    return kind(parse(kind.Spec, data, where))


def text_ids(base: Base, text: str, length: int | None, what: str) -> Tensor:
    """Ids [length] of a text, repeated or cut to fit; without a length the whole of it, as often as makes `WHOLE` tokens.

    Raises:
        ConfigError: the text has no tokens.
    """
    ids = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ConfigError(f"{what} has no tokens to start from; give a text")
    length = length or len(ids) * -(-WHOLE // len(ids))
    repeated = (ids * (length // len(ids) + 1))[:length]
    return torch.tensor(repeated, device=base.device)
