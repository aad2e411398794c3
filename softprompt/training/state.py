"""What the loop goes on from, where it leaves it, and what it may learn from instead of labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..answers import Evaluation
from ..engine import Engine, Learned
from ..types import Example

Objective = Callable[[Sequence[Example], Learned], tuple[Tensor, int]]
"""Of rows and what the method brings: the summed loss, with gradients, and by how many tokens it is to be divided."""


@dataclass(frozen=True)
class CustomObjective:
    """What a run learns from in place of its rows' labels.

    Attributes:
        make: of the run's engine, what is minimised.
        metric: what the metric on relabelled rows is called.
        record: what else decides the result; written into the manifest, as `teaching`.
    """

    make: Callable[[Engine], Objective]
    metric: str
    record: dict[str, Any]


@dataclass
class State:
    """All that a run needs to go on as if it had never stopped (the weights of the base never change).

    Attributes:
        step: optimizer steps done.
        parameters, optimizer: of the method.
        eval_history: dev evaluations that may still be the best: {"value", "error", "nll", "step", "parameters"}.
        best: the best of them so far.
        since: dev evaluations since then.
        unseen: dev is still to be evaluated after this step.
        loss: of the last step.
        factor: what the learning rate is multiplied by: halved at each spike.
        first_losses: of the run's first steps.
        recent: loss and gradient norm of each of the last steps.
        snapshots: states to go back to from a spike, the oldest first (see `spikes.py`).
        spikes: what was recorded of each.
        average: {"count", "parameters"}: their mean over so many dev evaluations; empty if nothing is averaged yet.
        evaluations: what `eval_history` is of, whole, by step; not kept in checkpoints.
    """

    step: int = 0
    parameters: list[Tensor] = field(default_factory=list)
    optimizer: dict[str, Any] = field(default_factory=dict)
    eval_history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    since: int = 0
    ended: str = ""
    unseen: bool = False
    loss: float = 0.0
    factor: float = 1.0
    first_losses: list[float] = field(default_factory=list)
    recent: list[list[float]] = field(default_factory=list)
    snapshots: list[dict[str, Any]] = field(default_factory=list)
    spikes: list[dict[str, Any]] = field(default_factory=list)
    average: dict[str, Any] = field(default_factory=dict)
    evaluations: dict[int, Evaluation] = field(default_factory=dict)

    def is_last(self, max_steps: int | None) -> bool:
        """Whether nothing is left to be done behind it."""
        return not self.unseen and (bool(self.ended) or self.step == max_steps)


def put_back(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy kept values into parameters."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


class Store(Protocol):
    """Where the loop leaves its state and its records; see `checkpoints.py`."""

    def load(self) -> State | None:
        """The last state of this run as it was found, if there is one."""

    def due(self, at_once: bool = False) -> bool:
        """Whether it is worth keeping the state now."""

    def save(self, state: State) -> None:
        """Keep the state."""

    def log(self, event: str, **values: Any) -> None:
        """Write one record."""
