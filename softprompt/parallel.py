"""Several processes train one run, each on its shard of the rows: processes, sums and exchanges are Hugging Face accelerate's.

A run is one process unless a launcher (`torchrun`, `accelerate launch`) says otherwise in the environment; then, and
only then, accelerate is imported. All processes hold the same parameters and take the same decisions; the first one writes.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from .errors import ConfigError, MissingExtraError, SoftpromptError, TrainingError
from .launcher import launched

T = TypeVar("T")
P = ParamSpec("P")
_REFUSED = ("DEEPSPEED", "MEGATRON_LM")
VALUES = 2  # that a meeting sums at most: who fails elsewhere meets the others there, with as many numbers
NUMBERS_AT_ONCE = 1 << 25  # of gradients in one sum; more only takes memory


class Processes:
    """One process: it has all rows, and every exchange gives back what it was given.

    Attributes:
        rank: which of them this is.
        world: how many there are.
        shards: whether the launcher asks for the trained weights to be shared out as well (FSDP).
        device: what exchanges are done on, where there are any.
    """

    rank, world = 0, 1
    shards = False
    device: torch.device | None = None

    @property
    def main(self) -> bool:
        """Whether this one writes and prints."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """`1 of 2`; nothing where there is one only."""
        return f"{self.rank + 1} of {self.world}" if self.world > 1 else ""

    def only_one(self, what: str) -> None:
        """For work that is not shared out.

        Raises:
            ConfigError: there are several processes.
        """
        if self.world > 1:
            raise ConfigError(f"{what} runs in one process; start it without torchrun or accelerate launch")

    def shard(self, items: Sequence[T], places: Sequence[int] | None = None) -> list[T]:
        """This process's shard: those whose place (by default the index) leaves its rank when divided by `world`."""
        places = places if places is not None else range(len(items))
        return [item for item, place in zip(items, places, strict=True) if place % self.world == self.rank]

    def gather(self, mine: list[T]) -> list[T]:
        """Of what each made of its shard (by index) the whole, in order, on every process."""
        return mine

    def totals(self, *values: float) -> tuple[float, ...]:
        """Each value's sum over processes."""
        return values

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Give all processes the sum of their gradients; None stays where none has any."""

    def from_main(self, value: T) -> T:
        """The first process's value."""
        return value

    def equal(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Give all processes the first one's parameters."""

    def exchange(self) -> contextlib.AbstractContextManager[None]:
        """The time of exchanges that torch does by itself; whoever fails meanwhile cannot tell the others."""
        return contextlib.nullcontext()

    def wait(self) -> None:
        """Until all are here."""

    def first(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What all do, one process of each machine before the others, so that what it fetches is fetched once."""
        return work(*args, **kwargs)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """An error of one process becomes the error of all."""
        yield


class Several(Processes):
    """This process among several.

    Every exchange begins with `_meet`, where each says whether it has failed. So a process that fails anywhere within
    `together` meets the others wherever they are, and all raise its error instead of waiting for it. The exception is
    `exchange`: who fails there ends alone, and the launcher, or the lost connection, ends the others.
    """

    def __init__(self) -> None:
        try:
            from accelerate import PartialState
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                "training in several processes needs accelerate: pip install 'softprompt[parallel]'"
            ) from error
        # told explicitly: without a GPU accelerate would take each of torchrun's processes for a run of its own
        on_cpu = not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1")
        try:
            self._state = PartialState(cpu=on_cpu)
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(
                f"WORLD_SIZE is {launched('world')}, but the processes cannot meet ({reason}); start them with torchrun or "
                "accelerate launch, or unset WORLD_SIZE for one process"
            ) from error
        self.rank, self.world = self._state.process_index, self._state.num_processes
        self._agreed: BaseException | None = None
        atexit.register(self._leave)
        self.shards, self.device = _asked("FSDP"), self._state.device
        if refused := next((name for name in _REFUSED if _asked(name)), None):
            raise ConfigError(
                f"{refused} is not supported: each process holds the whole model and its own share of the rows; start "
                "without it. To save memory, use train.gradient_checkpointing, train.optimizer: adafactor or method: lora; "
                "for full fine-tuning, accelerate launch --use_fsdp"
            )

    def gather(self, mine: list[T]) -> list[T]:
        self._meet()
        found = self._objects(mine)
        return [found[place % self.world][place // self.world] for place in range(sum(map(len, found)))]

    def totals(self, *values: float) -> tuple[float, ...]:
        return self._meet(*values)

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._meet()
        for some in _parts(parameters):
            has = torch.tensor([float(p.grad is not None) for p in some], device=some[0].device)
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in some]
            summed = self._sum(torch.cat([has, *(grad.flatten() for grad in grads)])).to(some[0].device)
            sizes = [len(some), *(p.numel() for p in some)]
            counts, *parts = summed.split(sizes)
            for p, count, part in zip(some, counts.tolist(), parts, strict=True):
                p.grad = part.view_as(p).to(p.dtype) if count else None

    def from_main(self, value: T) -> T:
        from accelerate.utils import broadcast_object_list

        self._meet()
        with self._peers():
            return broadcast_object_list([value])[0]

    def equal(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        from accelerate.utils import broadcast

        self._meet()
        with self._peers(), torch.no_grad():
            for p in parameters:
                p.copy_(broadcast(p.detach().to(self._state.device)))

    @contextlib.contextmanager
    def exchange(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._agreed = error  # the others wait in torch's exchange, not in ours
            if isinstance(error, torch.distributed.DistError) or "gloo" in str(error):
                with self._peers():
                    raise
            raise

    def wait(self) -> None:
        self._meet()

    def first(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        early = launched("local") == 0
        done = [work(*args, **kwargs)] if early else []
        self._meet()
        return done[0] if early else work(*args, **kwargs)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if error is not self._agreed:
                self._meet(error=error)
            raise

    def _leave(self) -> None:
        """At the end. The process group must have no other owner (an error's frames, FSDP's) when it goes, or gloo aborts."""
        self._agreed = None
        gc.collect()
        self._state.destroy_process_group()

    def _meet(self, *values: float, error: Exception | None = None) -> tuple[float, ...]:
        """Each value's sum over processes, all of which give as many.

        Raises:
            Exception: this process's own error, else that of the first process that has one.
        """
        given = [float(error is not None), *values, *[0.0] * (VALUES - len(values))]
        failed, *totals = self._sum(torch.tensor(given, dtype=torch.float64)).tolist()
        if failed:
            found = [item for part in self._objects([_plain(error, self.rank)]) for item in part if item is not None]
            self._agreed = error or found[0]
            raise self._agreed
        return tuple(totals[: len(values)])

    def _sum(self, values: Tensor) -> Tensor:
        from accelerate.utils import reduce

        with self._peers():
            return reduce(values.to(self._state.device), "sum")

    def _objects(self, mine: list[T]) -> list[list[T]]:
        """Every process's list, by rank."""
        from accelerate.utils import gather_object

        with self._peers():
            return gather_object([mine])

    @contextlib.contextmanager
    def _peers(self) -> Iterator[None]:
        """What torch says when another process is gone, as one line."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            self._agreed = TrainingError(
                f"another process of this run ended or cannot be reached (killed, or out of memory?): {reason}; the same "
                "command goes on from the last checkpoint"
            )
            raise self._agreed from error


@functools.cache
def processes() -> Processes:
    """The processes of this run, as the launcher started them.

    Raises:
        MissingExtraError: there are several, and accelerate is not installed.
        ConfigError: the launcher asks for the model itself to be shared out by DeepSpeed or Megatron.
    """
    return Several() if launched("world") > 1 else Processes()


def fail_together(function: Callable[P, T]) -> Callable[P, T]:
    """A function that all processes call: it fails on all of them if it fails on one."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with processes().together():
            return function(*args, **kwargs)

    return run


def _asked(name: str) -> bool:
    """Whether accelerate's launcher was told so."""
    return os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true"


def _parts(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Parameters of one device whose gradients are summed at once."""
    part: list[torch.nn.Parameter] = []
    for p in parameters:
        full = sum(q.numel() for q in part) + p.numel() > NUMBERS_AT_ONCE
        if part and (full or p.device != part[0].device):
            yield part
            part = []
        part.append(p)
    if part:
        yield part


def _plain(error: Exception | None, rank: int) -> Exception | None:
    """An error as it can be sent: ours as they are, what is a mistake in code by its name."""
    if error is None or isinstance(error, SoftpromptError):
        return error
    return TrainingError(f"process {rank}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
