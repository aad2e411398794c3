"""A method with a classifier of its own: any learned prompt, or weights, read off by a linear layer.

With a prefix in every layer this is P-tuning v2 (Liu et al. 2022, arXiv:2110.07602); with nothing learned beside it, a linear
probe by gradient. It is how a base without a language-model head answers at all. The head is part of the artifact.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from ..base import Base
from ..engine import BatchOutput, Learned, Slot
from ..errors import ArtifactError
from ..tasks import BoundTask
from .base import Method, Place, Stores, TrainDefaults
from .means import mean_tensors

_WEIGHT, _BIAS, _TRANSITIONS = "head.weight", "head.bias", "head.transitions"
_TRANSITIONS_RATE = 10.0  # at the head's own rate they are hardly learned (benchmarks/LOG.md)
_ALONE = 10  # epochs of a head alone


class Head(nn.Linear):
    """Logits [K] of a state, and where answers follow each other a number for each that follows another.

    Attributes:
        transitions: [K, K], from the row's answer to the column's; None: each answer is by itself.
    """

    transitions: nn.Parameter | None


@dataclass(frozen=True)
class HeadShape:
    """What a head answers, and how it is trained by default.

    Attributes:
        answers: its logits K; 0 if its answers are not known.
        reads_tokens: it reads each token of the text; else one state a row.
        chained: it also learns which answer follows which.
        rate: the inner method's learning rate is multiplied by it.
        epochs: it is trained for at least so many epochs.
        word_dropout: see `TrainSpec`.
    """

    answers: int
    reads_tokens: bool = False
    chained: bool = False
    rate: float = 1.0
    epochs: int = 0
    word_dropout: float = 0.0


class Headed(Method):
    """The inner method decides what is learned in the row; the head reads its pooled states or each token's.

    On a bidirectional base the pooled state is the mean over the row, else it is the last one. `own` holds the names of
    the head's tensors.
    """

    stores: Stores = "other"
    place: Place = "other"
    sums_over_tokens = False
    own = (_WEIGHT, _BIAS, _TRANSITIONS)

    def __init__(self, inner: Method, shape: HeadShape, bidirectional: bool = True) -> None:
        """Put a head behind a method.

        Args:
            bidirectional: the base reads both ways.
        """
        super().__init__(inner.spec)
        self.inner, self.shape = inner, shape
        inner.averaged = bidirectional and not shape.reads_tokens
        self.head: Head | None = None
        self.first_layer = inner.first_layer
        self.learns_slots = inner.learns_slots

    @property
    def defaults(self) -> TrainDefaults:  # type: ignore[override]
        """The inner method's; a head alone is trained longer, and one whose form of answers says so."""
        own, shape = self.inner.defaults, self.shape
        if not own.lr:
            return TrainDefaults(lr=own.head_lr, epochs=_ALONE, batch_size=32, word_dropout=shape.word_dropout)
        rate, epochs = own.lr * shape.rate, max(own.epochs, shape.epochs)
        return replace(own, lr=rate, epochs=epochs, word_dropout=shape.word_dropout)

    @property
    def keeps_instruction(self) -> bool:
        """As the inner method does."""
        return self.inner.keeps_instruction

    @property
    def length(self) -> int:
        """Of the inner method."""
        return self.inner.length

    @property
    def positions(self) -> int:
        """Of the inner method."""
        return self.inner.positions

    @property
    def answers(self) -> int | None:  # type: ignore[override]
        """Rows of the head."""
        return None if self.head is None else self.head.out_features

    def segments(self, slots: Sequence[Slot], cue: int) -> tuple[Slot, ...]:
        """As the inner method places them."""
        return self.inner.segments(slots, cue)

    def attach(self, base: Base, bound: BoundTask, seed: int) -> None:
        """The inner method's parameters, and a head that starts small (at zero nothing behind it would be seen to act)."""
        self.inner.attach(base, bound, seed)
        self.spec = self.inner.spec  # with what it has settled
        size = self.shape.answers
        start = torch.randn(size, base.shape.hidden_size, generator=torch.Generator().manual_seed(seed)) * 0.02
        transitions = torch.zeros(size, size) if self.shape.chained else None
        self._make_head(start, torch.zeros(size), transitions, base)

    def _make_head(self, weight: Tensor, bias: Tensor, transitions: Tensor | None, base: Base) -> None:
        """A head of this weight [K, H], bias [K] and transitions [K, K]."""
        # its own start would be drawn from the process's random numbers
        self.head = cast(Head, nn.utils.skip_init(Head, *weight.shape[::-1], device=base.device))
        self.head.transitions = (
            None if transitions is None else nn.Parameter(transitions.float().to(base.device).clone())
        )
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)

    def parameters(self) -> list[nn.Parameter]:
        """The inner method's and the head's."""
        return [] if self.head is None else [*self.inner.parameters(), *self.head.parameters()]

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """The head has a rate of its own, in proportion to that of the inner method, and its transitions a higher one."""
        assert self.head is not None
        own = self.inner.groups() if self.inner.parameters() else []
        rate = self.defaults.head_lr / self.defaults.lr
        alone = [weight for name, weight in self.head.named_parameters() if name != "transitions"]
        groups = [*own, (alone, rate)]
        if self.head.transitions is not None:
            groups.append(([self.head.transitions], rate * _TRANSITIONS_RATE))
        return groups

    def may_lack_gradient(self) -> list[nn.Parameter]:
        """The transitions: in rows of one word nothing follows."""
        idle = self.inner.may_lack_gradient()
        return idle if self.head is None or self.head.transitions is None else [*idle, self.head.transitions]

    def learned(self) -> Learned:
        """What the inner method brings, and the head."""
        return replace(self.inner.learned(), head=self.head)

    def training(self) -> contextlib.AbstractContextManager[object]:
        """Of the inner method."""
        return self.inner.training()

    def score(self, batch: BatchOutput, candidates: Sequence[Sequence[tuple[int, ...]]]) -> list[Tensor]:
        """Log-probabilities of the candidates by the head."""
        return list(self.classify(batch).log_softmax(-1))

    def classify(self, batch: BatchOutput) -> Tensor:
        """Logits [B, K] of the head."""
        assert self.head is not None
        logits: Tensor = self.head(batch.pooled.float())
        return logits

    def export(self) -> dict[str, Tensor]:
        """The inner method's tensors, and `head.weight` [K, H], `head.bias` [K] (what PEFT made comes without).

        Where answers follow each other also `head.transitions` [K, K].
        """
        if self.head is None:
            return self.inner.export()
        own = {_WEIGHT: self.head.weight, _BIAS: self.head.bias}
        if self.head.transitions is not None:
            own[_TRANSITIONS] = self.head.transitions
        return self.inner.export() | {name: value.detach().float().cpu().contiguous() for name, value in own.items()}

    def bound_to(self, bound: BoundTask) -> None:
        """The inner method."""
        self.inner.bound_to(bound)

    def mean_of(self, members: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
        """The inner method's mean, and that of the heads."""
        own = [{name: value for name, value in one.items() if name in self.own} for one in members]
        rest = [{name: value for name, value in one.items() if name not in self.own} for one in members]
        found = self.inner.mean_of(rest, weights) | mean_tensors(own, weights)
        self.spec = self.inner.spec
        return found

    def restore(self, tensors: dict[str, Tensor], base: Base) -> None:
        """Take them back after checking the head's width. Transitions that are not there are none."""
        weight, bias = tensors.get(_WEIGHT), tensors.get(_BIAS)
        width = base.shape.hidden_size
        if weight is None and bias is None:
            raise ArtifactError(
                f"the artifact holds no head ({_WEIGHT} [K, {width}], {_BIAS} [K]), and base {base.name!r} cannot answer "
                "with words; run softprompt merge, then train a head on the merged folder (method: probe)"
            )
        fits = weight is not None and weight.dim() == 2 and weight.shape[1] == width
        if weight is None or bias is None or not fits or bias.shape != weight.shape[:1]:
            raise ArtifactError(
                f"method {self.spec.name!r} has a head here: the artifact must hold {_WEIGHT} [K, {width}] and {_BIAS}"
            )
        transitions = tensors.get(_TRANSITIONS)
        if transitions is not None and transitions.shape != (len(bias), len(bias)):
            raise ArtifactError(
                f"{_TRANSITIONS} has shape {list(transitions.shape)}, this head needs {[len(bias), len(bias)]}"
            )
        self.inner.restore({name: value for name, value in tensors.items() if name not in self.own}, base)
        self._make_head(weight, bias, transitions, base)
