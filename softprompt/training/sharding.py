"""How the trained weights are held: whole by every process, or (FSDP) in shards, one for each process.

FSDP is torch's own (`fully_shard`; Zhao et al. 2023, arXiv:2304.11277), used as in ZeRO's second stage (Rajbhandari et
al. 2020, arXiv:1910.02054). Always in shards: gradients, the optimizer's state, and what is kept of earlier dev
evaluations. Weights are in shards between steps. Within a step, and while dev is evaluated, they are whole.

So weights are fetched once a step, not for each pass through a layer. Forwards need no exchange, so an error in one can
be reported, and processes may run unequal numbers of them. FSDP fetches a layer's weights when a gradient comes in
through the layer's output. The shared prefix gets its gradient through keys and values, in the last layer through
nothing else. As weights are whole then, this does no harm.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..base import Base
from ..base.layers import find_layers
from ..engine import Learned
from ..errors import ConfigError
from ..methods import Method
from ..parallel import Processes
from ..runfile import TrainSpec
from ..types import Example

if TYPE_CHECKING:
    from .state import Objective, State, Store

INSTEAD = "without FSDP each process holds the whole model and runs its share of the rows"


def refuse(method: Method, base: Base, spec: TrainSpec, parallel: Processes) -> None:
    """Say early what cannot be trained in shards.

    Raises:
        ConfigError: FSDP was asked for, and this method, base or optimizer cannot do it.
    """
    if not parallel.shards:
        return
    if not method.trains_whole_model:
        raise ConfigError(
            "FSDP shards the weights of full fine-tuning only (method: full, train: all, without layers); start method "
            f"{method.spec.name!r} without it: {INSTEAD}"
        )
    if not base.answers_at_end:
        raise ConfigError(
            f"FSDP shards causal bases only, {base.name!r} is of kind {base.kind}; start without it: {INSTEAD}"
        )
    if spec.optimizer != "adamw":
        raise ConfigError(
            f"train.optimizer: {spec.optimizer} does not work on shards (FSDP); use adamw, whose state can be sharded, or "
            f"start without FSDP: {INSTEAD}"
        )


def shard_weights(method: Method, base: Base, parallel: Processes) -> Weights:
    """The weights of a method that is attached to this base: in shards under FSDP, else whole in every process.

    In shards, `method.parameters()` are others (DTensors) from here on, until `finish`.
    """
    return Shards(method, base, parallel) if parallel.shards else Weights(parallel)


class Weights:
    """Whole in every process, each of which computes the gradients of its rows."""

    def __init__(self, parallel: Processes) -> None:
        self._parallel = parallel

    def unsharded(self) -> contextlib.AbstractContextManager[None]:
        """The time in which the model is run: all weights are there. All processes enter and leave it together."""
        return contextlib.nullcontext()

    def through(self, objective: Objective) -> Objective:
        """The objective as it must be called, in as many turns by every process."""
        return objective

    def parts(
        self, mine: Sequence[Example], rows: Sequence[Example], size: int, tokens: float
    ) -> Iterator[tuple[Sequence[Example], float]]:
        """This process's micro-batches of a step, and by what the loss of each is divided.

        Args:
            mine: its shard of `rows`.
            size: rows of a micro-batch.
            tokens: of all rows.
        """
        for begin in range(0, len(mine), size):
            yield mine[begin : begin + size], tokens

    def backward(self, loss: Tensor) -> None:
        """Add this loss's gradients; it has none where dropout took away all that is learned (`module_dropout`)."""
        if loss.requires_grad:
            loss.backward()

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Let the gradients be those of all processes' rows."""
        self._parallel.sum_gradients(parameters)

    def load(self, store: Store) -> State | None:
        """The state that the first process's store holds, as these weights are held."""
        return self._parallel.from_main(store.load())

    def due(self, store: Store, at_once: bool) -> bool:
        """Whether the state is to be kept now."""
        return store.due(at_once)

    def save(self, store: Store, state: State) -> None:
        """Keep the state, in whole tensors, so that any number of processes can go on from it, with or without shards."""
        store.save(state)

    def finish(self) -> None:
        """Leave the method as it was attached: whole, without traces of how it was trained."""


class Shards(Weights):
    """Of every weight one shard in each process.

    The number and the order of exchanges must be the same everywhere: each layer's gradients are summed, and shared out,
    as soon as its backward is done. So every process runs the same number of micro-batches.

    Raises:
        ConfigError: weights of several dtypes, or on another kind of device than the processes' exchanges; a torch that is
            too old.
    """

    def __init__(self, method: Method, base: Base, parallel: Processes) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        super().__init__(parallel)
        if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
            raise ConfigError(f"FSDP needs torch 2.13 or newer, this is {torch.__version__}")
        self._method, self._base, self._root = method, base, _Root(_model(method))
        if parallel.device is not None and base.device.type != parallel.device.type:
            raise ConfigError(
                f"FSDP exchanges weights on {parallel.device.type}, base.device is {base.device.type}; leave out base.device, "
                "or set ACCELERATE_USE_CPU=true to train on CPUs"
            )
        if len(dtypes := {str(p.dtype) for p in self._root.parameters()}) > 1:
            raise ConfigError(f"FSDP needs weights of one dtype, base {base.name!r} has {', '.join(sorted(dtypes))}")
        decoder = self._root.model.get_decoder()
        mesh = init_device_mesh(base.device.type, (parallel.world,))
        # the root takes what is in no layer: embeddings, the last norm, the head, which may be one weight with the embeddings
        self._modules: list[Any] = [*(find_layers(decoder, base.shape.layers) or ()), self._root]
        with parallel.exchange():
            for module in self._modules:
                fully_shard(module, mesh=mesh, reshard_after_forward=False)
                module.set_reshard_after_backward(False, recurse=False)
                module.set_gradient_divide_factor(1.0)  # the loss is divided by the tokens of all: sums, not means
                module.set_force_sum_reduction_for_comms(True)  # gloo knows no others
        self._parameters = method.parameters()

    @contextlib.contextmanager
    def unsharded(self) -> Iterator[None]:
        self._parallel.wait()
        with self._parallel.exchange():
            for module in self._modules:
                module.unshard()
        yield
        for module in self._modules:
            module.reshard()

    def through(self, objective: Objective) -> Objective:
        def called(examples: Sequence[Example], learned: Learned) -> tuple[Tensor, int]:
            found = self._root(lambda: objective(examples, learned))
            self._parallel.wait()  # an error in anyone's forward is told here, before the exchanges of the backward
            return found

        return called

    def parts(
        self, mine: Sequence[Example], rows: Sequence[Example], size: int, tokens: float
    ) -> Iterator[tuple[Sequence[Example], float]]:
        turns = math.ceil(math.ceil(len(rows) / self._parallel.world) / size)
        for begin in range(0, turns * size, size):
            # who has no rows left takes part with one that counts nothing: divided by infinity its gradients are 0
            yield (mine[begin : begin + size], tokens) if begin < len(mine) else (rows[:1], math.inf)

    def backward(self, loss: Tensor) -> None:
        with self._parallel.exchange():
            loss.backward()

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """They were summed in the backward."""

    def load(self, store: Store) -> State | None:
        held = store.load()
        state = self._parallel.from_main(held and _mapped(held, _hollow))
        if state is None or not state.step:
            return None
        state = held or state  # the first process has the numbers, the others the shapes

        def shards(values: Sequence[Tensor]) -> list[Tensor]:
            return [_shard(value, like) for value, like in zip(values, self._parameters, strict=True)]

        with self._parallel.exchange():
            state.parameters = shards(state.parameters)
            for index, moments in state.optimizer["state"].items():
                like = self._parameters[index]
                moments |= {key: _shard(value, like) for key, value in moments.items() if value.shape == like.shape}
            state.eval_history = [{**one, "parameters": shards(one["parameters"])} for one in state.eval_history]
            if state.average:
                state.average = {**state.average, "parameters": shards(state.average["parameters"])}
        state.best = next((one for one in state.eval_history if one["step"] == state.best["step"]), {})
        return state

    def due(self, store: Store, at_once: bool) -> bool:
        return self._parallel.from_main(store.due(at_once))  # the first process writes, but all must gather

    def save(self, store: Store, state: State) -> None:
        done: dict[int, Tensor | None] = {}  # the best is one of the history: gathered, and written, once

        def full(value: Any) -> Tensor | None:
            if not hasattr(value, "full_tensor"):
                return value
            if id(value) not in done:
                tensor = value.full_tensor()
                done[id(value)] = tensor.cpu() if self._parallel.main else None
            return done[id(value)]

        with self._parallel.exchange():
            gathered = _mapped(state, full)
        store.save(gathered)

    def finish(self) -> None:
        with self._parallel.exchange():
            found = {name: p.full_tensor().cpu() for name, p in self._root.model.named_parameters()}
        self._method.restore(found, self._base)
        _model(self._method).requires_grad_(True)


class _Root(nn.Module):
    """The module whose forward is a whole micro-batch, as FSDP expects of the outermost one.

    The engine calls embeddings, decoder and head one by one, so the model's own forward never runs.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], tuple[Tensor, int]]) -> tuple[Tensor, int]:
        """Do it."""
        return work()


def _model(method: Method) -> Any:
    """The model of a method that trains every weight."""
    base = method.learned().base
    assert base is not None
    return base.model


def _mapped(state: State, change: Callable[[Tensor], Any]) -> State:
    """The state with every tensor changed."""

    def mapped(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: mapped(item) for key, item in value.items()}
        if isinstance(value, list):
            return [mapped(item) for item in value]
        return change(value) if isinstance(value, Tensor) else value

    return type(state)(**{item.name: mapped(getattr(state, item.name)) for item in fields(state)})


def _hollow(value: Tensor) -> Tensor:
    """A tensor of this shape without numbers; what is one number (a count of steps) as it is."""
    return value.to("meta") if value.dim() else value


def _shard(value: Tensor, like: Any) -> Tensor:
    """This process's shard of the first one's whole tensor, laid out as another one."""
    from torch.distributed.tensor import distribute_tensor

    value = torch.empty_like(value, device=like.device) if value.is_meta else value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements)
