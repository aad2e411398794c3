"""A method that learns by contrast: what is learned in the row sorts the rows' states, a regression on them is the head.

SetFit (Tunstall et al. 2022, arXiv:2209.11055) does the same in two steps; the objective is in `training/contrastive.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ..base import Base
from ..engine import Engine
from ..tasks import BoundTask, Task
from ..types import Example, Progress, ignore_progress
from .defaults import TrainDefaults
from .headed import Headed
from .regression import fitted, least_loss, over_raw_states, standardised

_RATE = 2.0  # chosen on rows of two data sets, as the batch and the steps (benchmarks/LOG.md)
_BATCH = 16
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Inverse penalties to choose from: which is best differs by powers of ten, and few dev rows tell no finer ones apart."""


class Contrasted(Headed):
    """A method whose head no gradient moves: it is fitted anew to the states of the training rows.

    What it saves is what any method with a head saves, so its artifact is read as one.
    """

    refits = True

    def __init__(self, headed: Headed) -> None:
        """Take the head of a method with one out of the training by gradients."""
        super().__init__(headed.inner, headed.shape)
        self._base: Base | None = None

    @property
    def defaults(self) -> TrainDefaults:  # type: ignore[override]
        """The inner method's, in half as many steps at twice the rate; batches stay large: rows are compared within them."""
        own = super().defaults
        steps = own.min_steps // 2
        return replace(own, lr=_RATE * own.lr, min_steps=steps, batch_size=_BATCH, least_batch=_BATCH)

    def attach(self, base: Base, bound: BoundTask, seed: int) -> None:
        """As with any head; until it is fitted it is the small one of the start."""
        super().attach(base, bound, seed)
        self._base = base

    def parameters(self) -> list[nn.Parameter]:
        """The inner method's."""
        return self.inner.parameters()

    def groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """The inner method's."""
        return self.inner.groups()

    def may_lack_gradient(self) -> list[nn.Parameter]:
        """The inner method's."""
        return self.inner.may_lack_gradient()

    @torch.no_grad()
    def solve(
        self,
        engine: Engine,
        train: Sequence[Example],
        dev: Sequence[Example],
        task: Task,
        seed: int,
        progress: Progress = ignore_progress,
    ) -> None:
        """Fit the head on the states of the training rows as they are now.

        The penalty is chosen on dev rows alone: the states of training rows lie closer together than those of others.
        Without dev rows it is the one in the middle.
        """
        features = engine.features([*train, *dev], progress, True, self.learned()).double().numpy()
        gold = np.array([example.gold for example in [*train, *dev]])
        count = len(train)
        rows, mean, spread = standardised(features, gold, [*train, *dev], count, shared=True)
        folds = [(np.arange(count), np.arange(count, len(gold)))] if dev else []
        model = fitted(least_loss(STRENGTHS, rows, folds), rows, np.arange(count))
        weight, bias = over_raw_states(model, mean, spread, self.shape.answers)
        assert self._base is not None
        self._make_head(torch.from_numpy(weight).float(), torch.from_numpy(bias).float(), None, self._base)
