"""Which dev evaluation of a run is kept, and when dev evaluations say that it is enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..answers import LIKELIHOOD, Evaluation
from ..runfile import TrainSpec
from .state import State, put_back

ERRORS = 2.0
"""Standard errors that a dev evaluation may lie behind the highest and still be kept for its nll."""


def judge(evaluation: Evaluation, state: State, spec: TrainSpec, parameters: list[Tensor], whole: bool) -> None:
    """Keep the parameters of a dev evaluation if they are the best so far, and say when it is enough.

    Args:
        whole: the task's metric was taken, so these rows need not be asked again.
    """
    now = evaluation.estimate
    this = {"value": now.value, "error": now.error, "nll": evaluation.nll, "step": state.step, "parameters": parameters}
    this["metric"] = now.metric
    earlier = state.best.get("step")
    state.eval_history = undominated([*state.eval_history, this])
    state.best = best_of(state.eval_history)
    if whole or now.metric != LIKELIHOOD:
        state.evaluations[state.step] = evaluation
    steps = {past["step"] for past in state.eval_history}
    state.evaluations = {step: one for step, one in state.evaluations.items() if step in steps}
    state.since = state.since + 1 if state.best["step"] == earlier else 0
    if spec.target is not None and now.interval[0] >= spec.target:
        state.ended = f"the dev {now.metric}'s lower bound {now.interval[0]:.3f} reached the target {spec.target:g}"
    elif spec.keep in (None, "best") and state.since >= spec.patience:
        state.ended = f"no better dev {now.metric} in {spec.patience} evaluations"


def average_in(state: State, spec: TrainSpec, parameters: Sequence[Tensor]) -> None:
    """Take the parameters into the run's average, if its step is one that counts: a dev evaluation's of the second half."""
    assert spec.max_steps and spec.eval_every
    if spec.keep != "average" or 2 * state.step <= spec.max_steps or not evaluates_after(state.step, spec):
        return
    count = state.average.get("count", 0) + 1
    now = [parameter.detach() for parameter in parameters]
    before = state.average.get("parameters", now)
    # new tensors each time: snapshots hold the earlier ones
    state.average = {
        "count": count,
        "parameters": [_moved(old, new, count) for old, new in zip(before, now, strict=True)],
    }


def _moved(old: Tensor, new: Tensor, count: int) -> Tensor:
    """A mean of so many, the newest among them; what a checkpoint held lies on the CPU."""
    old = old.to(new.device)
    return old + (new - old) / count


def evaluates_after(step: int, spec: TrainSpec) -> bool:
    """Whether dev is evaluated after a step, where there are dev rows."""
    assert spec.max_steps and spec.eval_every
    return step % spec.eval_every == 0 or step == spec.max_steps


def put_back_kept(state: State, spec: TrainSpec, parameters: Sequence[Tensor]) -> int:
    """Give the method what the run ends with; the step that it is of, the last one for an average."""
    if spec.keep == "average" and state.average:
        put_back(parameters, state.average["parameters"])
        state.evaluations = {}  # they are of single steps
    elif spec.keep in (None, "best") and state.best:
        put_back(parameters, state.best["parameters"])
        return int(state.best["step"])
    return state.step


def best_of(history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The dev evaluation to keep: of those within two standard errors of the highest metric, the one with the lowest nll.

    This is the one-standard-error rule (Breiman et al. 1984, §3.4.3) with two standard errors. On some hundred dev rows
    the metric is mostly noise: a bar that was missed by one row cost a point on 1,500 other rows.
    """
    top = max(history, key=lambda one: (one["value"], -one["nll"]))
    close = [one for one in history if one["value"] >= _bar(top)]
    return min(close, key=lambda one: (one["nll"], -one["value"]))


def undominated(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without those that another one beats in metric and nll, or that fell more than two standard errors behind the highest.

    `best_of` would not choose them; each holds a copy of the parameters.
    """
    top = max(history, key=lambda one: (one["value"], -one["nll"]))

    def beaten(one: dict[str, Any]) -> bool:
        return one["value"] < _bar(top) or any(
            other["value"] >= one["value"]
            and other["nll"] <= one["nll"]
            and (other["value"], other["nll"]) != (one["value"], one["nll"])
            for other in history
        )

    return [one for one in history if not beaten(one)]


def _bar(top: dict[str, Any]) -> float:
    """What a dev evaluation must reach beside the highest one."""
    value: float = top["value"] - ERRORS * top["error"]
    return value
