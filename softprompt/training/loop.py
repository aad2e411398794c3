"""The training loop. Batch, loss, step, what to do of a spike, dev evaluation, keep the best, stop when done."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch.optim import Optimizer

from ..answers import LIKELIHOOD, evaluate, evaluate_quickly
from ..base.memory import peak_memory
from ..control import Control
from ..errors import TrainingError
from ..findings import above_majority
from ..interrupts import Interrupted
from ..metrics import Estimate
from ..prepared import Prepared
from ..randomness import seeded
from ..runfile import TrainSpec
from ..types import Example, Progress
from .contrastive import paired_batch_at
from .keeping import average_in, evaluates_after, judge, put_back_kept
from .optimizers import make_optimizer
from .sharding import Weights, shard_weights
from .spikes import Guard, told
from .state import Objective, State, Store, put_back
from .word_dropout import with_hidden_words

T = TypeVar("T")
SOON = 3  # dev evaluations after which something should have been learned


def fit(
    prepared: Prepared,
    spec: TrainSpec,
    seed: int,
    store: Store,
    control: Control | None = None,
    objective: Objective | None = None,
) -> tuple[State, int]:
    """Train the method's parameters; leave in the method those that `spec.keep` says: by default the best, by dev.

    The loss is that of the answer form over the tokens of the whole optimizer step. Micro-batches, or sharding rows
    over processes, do not change it. Without dev rows the last step counts as the best.

    Args:
        spec: filled (no nulls left).
        control: callbacks; the processes that share the rows, which all end up with the same state; and whether a
            signal asks for an end. Then the step is finished and kept first.
        objective: what is minimised; by default the loss of the answers' form.

    Returns:
        the state, and the step that was kept.

    Raises:
        NotFiniteError: a loss or gradient is no number; names the step and its rows.
        Interrupted: a signal asked for an end.
    """
    assert spec.lr and spec.max_steps
    control = control or Control()
    method, asked = prepared.method, control.asked
    control.parallel.equal(method.parameters())
    weights = shard_weights(method, prepared.engine.base, control.parallel)
    objective = weights.through(objective or partial(prepared.form.loss, prepared.engine))
    parameters, optimizer = method.parameters(), make_optimizer(method.groups(), spec)
    guard = Guard(parameters, optimizer, spec.clip, method.trains_whole_model)
    run = _Run(prepared, spec, seed, store, control, objective, weights, guard)
    state = run.resumed(optimizer)
    guard.keep(state)

    while state.unseen or (state.step < spec.max_steps and not state.ended):
        stop = False
        if not state.unseen:
            stop = run.step(state, optimizer)
        if state.unseen and not stop:
            stop = run.evaluate(state)
        guard.keep(state)
        if weights.due(store, at_once=stop or state.step == spec.max_steps or bool(state.ended)):
            run.save(state, optimizer)
        if stop:
            store.log("interrupted", step=state.step)
            raise Interrupted(asked.number or signal.SIGTERM)
        shown = f"training, loss {state.loss:.3f}" + (f", dev {state.best['value']:.3f}" if state.best else "")
        control.progress(shown, state.step, state.step if state.ended else spec.max_steps)
    if asked.number:  # while the last of it was kept
        raise Interrupted(asked.number)

    kept = put_back_kept(state, spec, parameters)
    weights.finish()
    run.refit(control.progress)
    store.log("trained", step=state.step, best_step=kept, reason=state.ended or "all steps done", **peak_memory())
    return state, kept


@dataclass(frozen=True)
class _Run:
    """What all steps and dev evaluations of a run have in common; see `fit`."""

    prepared: Prepared
    spec: TrainSpec
    seed: int
    store: Store
    control: Control
    objective: Objective
    weights: Weights
    guard: Guard

    def resumed(self, optimizer: Optimizer) -> State:
        """The state of the checkpoint, with its parameters and its optimizer in place; a new one where there is none."""
        state = self.weights.load(self.store) or State()
        if state.step:
            put_back(self.prepared.method.parameters(), state.parameters)
            optimizer.load_state_dict(state.optimizer)
            self.store.log("resumed", step=state.step)
        return state

    def save(self, state: State, optimizer: Optimizer) -> None:
        """Write a checkpoint of the state, of the parameters and of the optimizer as they are now."""
        state.parameters = [parameter.detach().clone() for parameter in self.prepared.method.parameters()]
        state.optimizer = optimizer.state_dict()
        self.weights.save(self.store, state)

    def step(self, state: State, optimizer: Optimizer) -> bool:
        """One step of the optimizer; whether the run is to end after it (all processes agree)."""
        spec, parallel, weights = self.spec, self.control.parallel, self.weights
        engine, form, method, train = (
            self.prepared.engine,
            self.prepared.form,
            self.prepared.method,
            self.prepared.splits["train"],
        )
        assert spec.batch_size and spec.micro_batch and spec.max_steps and spec.eval_every
        began = time.perf_counter()
        indices = self._draw(train, state.step)
        rows = [train[index] for index in indices]
        if spec.word_dropout:  # before they are shared out, so that every way to do so loses the same
            rows = with_hidden_words(rows, spec.word_dropout, engine.base, self.seed * 1_000_003 + state.step)
        # what is kept of a row, its owner keeps
        mine = parallel.shard(rows, indices if engine.plan.keeps_rows else None)
        tokens = form.step_weight(rows)
        loss = 0.0
        # dropout is a function of seed, step and process, so resuming is exact
        number = (self.seed * 1_000_003 + state.step) * parallel.world + parallel.rank
        with weights.unsharded(), seeded(number, engine.base.device):
            for part, divisor in weights.parts(mine, rows, spec.micro_batch, tokens):
                with method.training():  # the backward as well: with checkpointing it runs layers again
                    total, _ = self.objective(part, method.learned())
                    weights.backward(total / divisor)
                loss += total.item() / divisor
        loss, stop = parallel.totals(loss, float(self.control.asked.number))
        parameters = method.parameters()
        weights.sum_gradients(parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, spec.clip))
        refuse_not_finite(loss, norm, rows, spec, state, self.store)
        rate = learning_rate(state.step, spec) * state.factor
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        optimizer.step()
        optimizer.zero_grad()
        state.step += 1
        state.loss = loss
        has_dev = bool(self.prepared.splits.get("dev"))
        state.unseen = has_dev and evaluates_after(state.step, spec)
        seconds = time.perf_counter() - began
        self.store.log("step", step=state.step, loss=loss, norm=norm, lr=rate, tokens=tokens, seconds=seconds)
        if spike := self.guard.look(state, norm):
            self.store.log("spike", **spike)
            assert spec.lr
            self.control.notice(f"warning: {told([spike], spec.lr)}")
        else:
            average_in(state, spec, parameters)
        return bool(stop)

    def _draw(self, train: Sequence[Example], step: int) -> list[int]:
        """Indices of the rows of a step."""
        assert self.spec.batch_size
        if self.spec.objective == "contrastive":
            return paired_batch_at([row.gold for row in train], step, self.spec.batch_size, self.seed)
        return batch_at(range(len(train)), step, self.spec.batch_size, self.seed)

    def refit(self, progress: Progress) -> None:
        """Let the method learn what it learns in closed form of what was trained, if it does."""
        ready = self.prepared
        if ready.method.refits:
            dev = ready.splits.get("dev", [])
            ready.method.solve(ready.engine, ready.splits["train"], dev, ready.task, self.seed, progress)

    def evaluate(self, state: State) -> bool:
        """Evaluate on dev; whether the run is to end now: one process leaves at once (and evaluates when it goes on)."""
        spec, control, prepared = self.spec, self.control, self.prepared
        assert spec.max_steps and spec.eval_every
        dev = prepared.splits["dev"]

        def told(what: str, done: int, total: int) -> None:
            control.progress(what, done, total)
            if control.asked.number and control.parallel.world == 1:
                raise _StoppedError

        began = time.perf_counter()
        whole = spec.target is not None or prepared.task.evaluates_metric
        try:
            with self.weights.unsharded():
                self.refit(told)
                measure = evaluate if whole else evaluate_quickly
                evaluation = measure(prepared, dev, replace(control, progress=told))
        except _StoppedError:
            return True
        now = evaluation.estimate
        self.store.log("dev", step=state.step, **now.as_dict(), nll=evaluation.nll, seconds=time.perf_counter() - began)
        kept = [parameter.detach().clone() for parameter in prepared.method.parameters()]
        judge(evaluation, state, spec, kept, whole)
        state.unseen = False
        if state.step == min(SOON * spec.eval_every, spec.max_steps):
            _warn_below_majority(prepared, state, self.store)
        return bool(control.parallel.totals(float(control.asked.number))[0])


class NotFiniteError(TrainingError):
    """A loss or gradient is no number, so training cannot go on."""


class _StoppedError(Exception):
    """A dev evaluation that is left before its end."""


def refuse_not_finite(
    loss: float, norm: float, rows: Sequence[Example], spec: TrainSpec, state: State, store: Store
) -> None:
    """Stop before a loss or gradient that is no number reaches the parameters.

    Raises:
        NotFiniteError: names the step and its rows.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    what = f"loss {loss}" if not math.isfinite(loss) else f"gradient norm {norm}"
    where = ", ".join(example.where for example in rows[:8]) + (" …" if len(rows) > 8 else "")
    store.log("not_finite", step=state.step + 1, loss=str(loss), norm=str(norm), rows=[e.where for e in rows])
    raise NotFiniteError(
        f"step {state.step + 1}: {what} on rows {where}; lower train.lr (now {spec.lr:g}) or use base.dtype: fp32"
    )


def _warn_below_majority(prepared: Prepared, state: State, store: Store) -> None:
    """Record a warning if the best dev evaluation so far is not above always answering the most frequent label."""
    value, margin = state.best["value"], 2 * state.best["error"]  # the interval is two errors to each side
    if state.best["metric"] == LIKELIHOOD:
        return
    dev = prepared.splits["dev"]
    estimate = Estimate(state.best["metric"], value, (value - margin, value + margin), len(dev))
    finding = above_majority(prepared.task, dev, estimate)
    if finding.level != "ok":
        store.log("doctor", step=state.step, **finding.as_dict())


def batch_at(train: Sequence[T], step: int, size: int, seed: int) -> list[T]:
    """Rows of an optimizer step: a seeded order per epoch, a function of the step alone, so resuming needs no sampler."""
    steps = -(-len(train) // size)
    epoch, place = divmod(step, steps)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)).tolist()
    return [train[index] for index in order[place * size : (place + 1) * size]]


def learning_rate(step: int, spec: TrainSpec) -> float:
    """Warm-up to `lr` over the first `warmup` of the steps, then linear or cosine to zero, or constant."""
    assert spec.lr and spec.max_steps
    warm = int((spec.warmup or 0.0) * spec.max_steps)
    if step < warm:
        return spec.lr * (step + 1) / (warm + 1)
    fraction = (step - warm) / max(1, spec.max_steps - warm)
    if spec.schedule == "linear":
        return spec.lr * (1 - fraction)
    if spec.schedule == "cosine":
        return spec.lr * 0.5 * (1 + math.cos(math.pi * fraction))
    return spec.lr
