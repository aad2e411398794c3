"""A loss spike sends a run back to its last good state, from where it goes on with half the learning rate.

A spike is judged by the run's own losses and gradient norms. All processes share them, so all decide alike. Batches differ,
and one hard row raises a loss: so only steps in a row count, each of them above all steps before. Their cause lies some
steps further back, so two snapshots are kept and the older one is taken.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ..findings import Finding
from .keeping import best_of
from .state import State, put_back

LASTING = 5  # steps in a row that make a spike: if batches were all that differs, it would be one step in 1,287 at most
BEFORE, LEAST = 8, 4  # steps that they are compared with: at most, at least
TIMES, MARGIN = 1.2, 1.0  # of the median loss, and nats above it; both must be exceeded (1.5 times overlooks 2.5 → 3.7)
NORM_TIMES = 10.0  # of the median gradient norm
APART = 8  # steps between two snapshots, so the older lies 9 to 16 steps back
LARGEST = 1 << 22  # trained numbers of which snapshots are kept; with AdamW's moments each takes 48 MiB in fp32
MOST = 4  # times that a run goes back
FEW = 8  # steps whose losses are a run's first, and its last


@dataclass(frozen=True)
class Spike:
    """Loss (nats a token) and gradient norm of a spike, and those before it.

    Attributes:
        loss, norm: of the last step.
        usual_loss, usual_norm: medians of the steps before.
    """

    loss: float
    norm: float
    usual_loss: float
    usual_norm: float


def find_spike(recent: Sequence[Sequence[float]], clip: float) -> Spike | None:
    """The spike that the last steps are, if they are one.

    A gradient spike alone is none, as clipping bounds what it does: the losses must have risen as well, though by less.

    Args:
        recent: loss and gradient norm of each step, the last one at the end.
        clip: gradients up to this norm act as they are.
    """
    before, last = recent[:-LASTING][-BEFORE:], recent[-LASTING:]
    if len(before) < LEAST:
        return None
    usual_loss, usual_norm = (statistics.median(values) for values in zip(*before, strict=True))
    lowest_loss, lowest_norm = (min(values) for values in zip(*last, strict=True))
    if lowest_loss <= max(loss for loss, _ in before):
        return None
    by_loss = lowest_loss > max(TIMES * usual_loss, usual_loss + MARGIN)
    by_norm = lowest_norm > max(NORM_TIMES * usual_norm, clip)
    return Spike(last[-1][0], last[-1][1], usual_loss, usual_norm) if by_loss or by_norm else None


class Guard:
    """Watches the steps of a run, and takes its state back from a spike.

    Up to `LARGEST` trained numbers, parameters and the optimizer's state are kept every `APART` steps. Of more, or of a whole
    model, this would take too much memory. There the run goes back to the last dev evaluation that it kept, and the
    optimizer begins anew.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], optimizer: Optimizer, clip: float, whole_model: bool
    ) -> None:
        self._parameters, self._optimizer, self._clip = parameters, optimizer, clip
        self._small = not whole_model and sum(one.numel() for one in parameters) <= LARGEST

    def keep(self, state: State) -> None:
        """Take a snapshot if one is due; a state whose dev evaluation is still to come has to wait for it."""
        newest = state.snapshots[-1]["step"] if state.snapshots else -1
        if not self._small or state.unseen or state.step % APART or state.step == newest:
            return
        snapshot = {
            "step": state.step,
            "parameters": [parameter.detach().clone() for parameter in self._parameters],
            "optimizer": _cloned(self._optimizer.state_dict()),
            "eval_history": state.eval_history,
            "best": state.best,
            "average": state.average,
            "since": state.since,
            "recent": state.recent,
        }
        state.snapshots = [*state.snapshots[-1:], snapshot]

    def look(self, state: State, norm: float) -> dict[str, Any] | None:
        """Note the step that was done, and go back if it ends a spike; what is to be recorded of the spike.

        Args:
            norm: of the step's gradient, before it was clipped.
        """
        if state.step == len(state.first_losses) + 1 <= FEW:
            state.first_losses = [*state.first_losses, state.loss]
        state.recent = [*state.recent, [state.loss, norm]][-(BEFORE + LASTING) :]
        if len(state.spikes) > MOST or not (spike := find_spike(state.recent, self._clip)):
            return None
        record = {
            "step": state.step,
            "loss": spike.loss,
            "median_loss": spike.usual_loss,
            "norm": spike.norm,
            "median_norm": spike.usual_norm,
        }
        if len(state.spikes) < MOST:
            state.factor /= 2
            self._go_back(state)
            record["back_to"] = state.step
        record["factor"] = state.factor
        state.spikes = [*state.spikes, record]
        return record

    def _go_back(self, state: State) -> None:
        """To the older snapshot, or to a dev evaluation that was kept; where there is neither, the state stays."""
        earlier = [
            one for one in state.eval_history if one["step"] < state.step - LASTING
        ]  # the cause lies before the spike
        if state.snapshots:
            good = state.snapshots[0]
            self._optimizer.load_state_dict(_cloned(good["optimizer"]))
            state.snapshots = [good]
        elif earlier:
            good = {**earlier[-1], "eval_history": earlier, "best": best_of(earlier), "since": 0, "recent": []}
            good["average"] = {}  # it may hold what was on the way to the spike
            self._optimizer.state.clear()
        else:
            state.recent = []
            return
        put_back(self._parameters, good["parameters"])
        for name in ("step", "eval_history", "best", "since", "recent"):
            setattr(state, name, good[name])
        state.average = good.get("average", {})  # checkpoints of earlier versions have none
        steps = {one["step"] for one in state.eval_history}
        state.evaluations = {step: one for step, one in state.evaluations.items() if step in steps}
        state.unseen = False


def told(spikes: Sequence[dict[str, Any]], lr: float) -> Finding:
    """What a run says of its spikes.

    Args:
        spikes: at least one, as `Guard.look` gave them.
        lr: the learning rate that was asked for.
    """
    first, last = spikes[0], spikes[-1]
    rose = (
        f"the loss rose from {first['median_loss']:.2g} to {first['loss']:.2g} by step {first['step']} (gradient norm from "
        f"{first['median_norm']:.2g} to {first['norm']:.2g})"
    )
    if more := ", ".join(str(spike["step"]) for spike in spikes[1:]):
        rose += f", and again by step {more}"
    places = ", ".join(f"to step {spike['back_to']}" for spike in spikes if _went_back(spike))
    done = (
        f"the run went back {places}, and on" if places else "the run had no earlier state to go back to, and went on"
    )
    done += f" with {last['factor']:g} of the learning rate"
    if "back_to" not in last:
        done = (f"{done}; " if places else "") + f"after {MOST} times a run goes on as it is"
    return Finding("spike", "warning", f"{rose}; {done}", f"lower train.lr (now {lr:g}) or raise train.warmup")


def learned_nothing(state: State, lr: float) -> Finding | None:
    """A warning where the training loss did not fall; None where it did, or where there are too few steps to say."""
    last = [loss for loss, _ in state.recent[-FEW:]]
    if state.step < 2 * FEW or min(len(state.first_losses), len(last)) < FEW:
        return None
    before, now = statistics.median(state.first_losses), statistics.median(last)
    if now < before:
        return None
    return Finding(
        "loss",
        "warning",
        f"this run learned nothing: its training loss was {before:.3g} in the first {FEW} steps (median) and {now:.3g} in the "
        f"last {FEW}",
        f"use another train.lr (now {lr:g}), a lower one if the loss jumps, or another method",
    )


def _went_back(record: dict[str, Any]) -> bool:
    return record.get("back_to", record["step"]) < record["step"]


def _cloned(value: Any) -> Any:
    """The same with tensors of its own: an optimizer changes its own in place, and takes over those that it is given."""
    if isinstance(value, dict):
        return {key: _cloned(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_cloned(item) for item in value)
    return value.detach().clone() if isinstance(value, Tensor) else value
