"""Supervised contrastive learning (Khosla et al. 2020, arXiv:2004.11362): rows of one label are drawn together, others apart.

A row is compared with all other rows of its optimizer step, by the cosine of what a head reads of them: the means of their
states. With few labels this teaches more than each row's own label does: a step of 32 rows has 992 pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base import Base
from ..engine import Learned
from ..errors import ConfigError, DataError
from ..methods import Contrasted, Headed, Method
from ..parallel import Processes
from ..prepared import Prepared
from ..runfile import TrainSpec
from ..tasks import Task
from ..types import Example
from .state import Objective

KEY = "train.objective: contrastive"
LEAST_BATCH = 4
"""Rows of a step: two of each of two labels."""


def contrasted(method: Method, base: Base, task: Task, spec: TrainSpec, parallel: Processes) -> Method:
    """The method as it is trained by contrast.

    Args:
        method: with its head, if it has one.

    Raises:
        ConfigError: base, task, method or batches that it is not for.
    """
    parallel.only_one(KEY)
    if base.kind != "encoder":
        raise ConfigError(
            f"{KEY} compares the means of rows' states, and base {base.name!r} is of kind {base.kind}; take an encoder such "
            "as minilm, or base.kind: encoder"
        )
    if task.head_form != "chosen":
        raise ConfigError(
            f"{KEY} needs rows of one label each, and the task is of type {task.spec.type!r}; leave train.objective out"
        )
    if not isinstance(method, Headed) or not method.inner.defaults.lr:
        raise ConfigError(
            f"{KEY} trains what is learned in the row, and method {method.spec.name!r} learns nothing there; take lora, full "
            "or prefix, or leave train.objective out"
        )
    if spec.batch_size is not None and spec.batch_size < LEAST_BATCH:
        raise ConfigError(
            f"{KEY} compares the rows of a step, and train.batch_size is {spec.batch_size}; take at least {LEAST_BATCH}"
        )
    refuse_parts(spec)
    return Contrasted(method)


def refuse_parts(spec: TrainSpec) -> None:
    """
    Raises:
        ConfigError: a step would run in several forwards. That is only known where `batch_size` is, so of a spec that is
            not filled, only a written one counts.
    """
    if spec.micro_batch is not None and spec.batch_size is not None and spec.micro_batch < spec.batch_size:
        raise ConfigError(
            f"{KEY} compares the {spec.batch_size} rows of a step with each other, so they run in one forward; leave out "
            "train.micro_batch, and set train.gradient_checkpointing: true to save memory"
        )


def refuse_unpaired(rows: Sequence[Example]) -> None:
    """
    Raises:
        DataError: nothing to compare: one label only, or no label with two rows.
    """
    labels = [row.gold for row in rows]
    if len(set(labels)) < 2:
        raise DataError(f"{KEY} needs training rows of at least two labels; all {len(rows)} have the same")
    if len(set(labels)) == len(rows):
        raise DataError(
            f"{KEY} compares rows of one label, and each of the {len(rows)} training rows has another; give a label two rows "
            "or more, or leave train.objective out"
        )


def contrastive_objective(prepared: Prepared, temperature: float) -> Objective:
    """The loss of a step's rows, times what the loop divides by: their weights."""
    engine, form = prepared.engine, prepared.form

    def objective(rows: Sequence[Example], learned: Learned) -> tuple[Tensor, int]:
        states = engine.pooled(rows, learned).float()
        labels = torch.tensor([row.gold for row in rows], device=states.device)
        weights = states.new_tensor([row.weight for row in rows])
        loss = contrastive_loss(states, labels, weights, temperature)
        return loss * form.step_weight(rows), len(rows)

    return objective


def contrastive_loss(states: Tensor, labels: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Khosla et al.'s L_out: of each row the mean of −log p(a row of its label | any other row), in the mean of the rows.

    p is a softmax of the cosines with all other rows, divided by the temperature. A row whose label no other row has is
    compared with, and has no term of its own.

    Args:
        states: [B, H], not normalised.
        labels: [B].
        weights: [B], of each row's own term.

    Returns:
        a number; 0, with gradients of 0, where no two rows have one label.
    """
    unit = F.normalize(states, dim=1)
    itself = torch.eye(len(states), dtype=torch.bool, device=states.device)
    logp = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf).log_softmax(1)  # [B, B]
    alike = (labels[:, None] == labels) & ~itself
    counts = alike.sum(1)
    paired = counts > 0
    if not bool(paired.any()):
        return states.sum() * 0.0
    each = -logp.masked_fill(~alike, 0.0).sum(1)[paired] / counts[paired]
    return (each * weights[paired]).sum() / weights[paired].sum()


def paired_batch_at(labels: Sequence[int | None], step: int, size: int, seed: int) -> list[int]:
    """Indices of the rows of an optimizer step: a seeded order per epoch in which rows of one label stand in twos and threes.

    It is a function of the step alone, as `batch_at` is, with as many steps an epoch, all of nearly as many rows. An epoch has
    every row once. Two rows that the end of a batch parts are compared with other rows only.
    """
    steps = -(-len(labels) // size)
    epoch, index = divmod(step, steps)
    draws = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    by_label: dict[int | None, list[int]] = {}
    for row in torch.randperm(len(labels), generator=draws).tolist():
        by_label.setdefault(labels[row], []).append(row)
    groups = [group for rows in by_label.values() for group in _twos_and_threes(rows)]
    order = [row for group in torch.randperm(len(groups), generator=draws).tolist() for row in groups[group]]
    return order[index * len(order) // steps : (index + 1) * len(order) // steps]


def _twos_and_threes(rows: list[int]) -> list[list[int]]:
    """The rows in twos, of an odd number the last ones in a three; a single row is alone."""
    count = max(1, len(rows) // 2)
    return [rows[2 * index : 2 * index + 2 if index < count - 1 else None] for index in range(count)]
