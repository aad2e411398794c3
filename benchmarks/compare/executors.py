"""Where runs are made: in this process, in processes of this machine, or on a Ray cluster. Each worker takes one run."""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from softprompt.benchmarks.compare.context import RunContext
from softprompt.benchmarks.compare.execute import Done, execute
from softprompt.benchmarks.compare.parent import end_with
from softprompt.benchmarks.compare.runs import Run
from softprompt.errors import ConfigError, MissingExtraError
from softprompt.interrupts import STOPPING
from softprompt.runfile import CacheSpec
from softprompt.types import Progress, ignore_progress

Name = Literal["here", "pool", "ray"]


class Worker(Protocol):
    """Makes one run at a time.

    Attributes:
        fresh: nothing has run in its process yet.
    """

    fresh: bool

    def submit(self, run: Run) -> Future[Done]:
        """Start a run. The future fails if the process itself ends."""

    def restart(self) -> None:
        """Take a new process in place of this one."""

    def close(self) -> None:
        """Give everything back."""


class Here:
    """This process; `submit` returns when the run is done."""

    def __init__(self, cache: CacheSpec, artifacts: Path | None, progress: Progress) -> None:
        self.context, self.artifacts, self.progress = RunContext(cache, progress), artifacts, progress
        self.fresh = False  # the command itself has run here

    def submit(self, run: Run) -> Future[Done]:
        """Make the run."""
        future: Future[Done] = Future()
        future.set_result(execute(run, self.context, False, self.artifacts, self.progress))
        return future

    def restart(self) -> None:
        """Nothing: there is no other process."""

    def close(self) -> None:
        """Nothing to give back."""


class Process:
    """A process of its own, started anew by `restart`. It ends when its parent does, however that ends."""

    def __init__(self, place: int, threads: int, cache: CacheSpec, artifacts: Path | None, isolate: bool) -> None:
        self._settings, self._isolate = (place, threads, cache, artifacts), isolate
        self._start()

    def _start(self) -> None:
        place, threads, cache, artifacts = self._settings
        self.fresh = True
        self._pool = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),  # torch's threads do not survive a fork
            initializer=_begin,
            initargs=(os.getpid(), place, threads, cache, artifacts),
        )

    def submit(self, run: Run) -> Future[Done]:
        """Start the run."""
        try:
            future = self._pool.submit(_run, run, self._isolate)
        except BrokenProcessPool:  # it died between two runs
            self.restart()
            future = self._pool.submit(_run, run, self._isolate)
        self.fresh = False
        return future

    def restart(self) -> None:
        """End the process, take a new one."""
        self.close()
        self._start()

    def close(self) -> None:
        """End the process."""
        for process in list((self._pool._processes or {}).values()):
            process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)


_state: tuple[RunContext, Path | None] | None = None


def _begin(parent: int, place: int, threads: int, cache: CacheSpec, artifacts: Path | None) -> None:
    """Set up a worker process: its threads, its GPU, what its runs share."""
    global _state
    for number in STOPPING:  # they go to all processes of a terminal; the parent hears them, and then ends this
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    end_with(parent)
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())
    torch.set_num_threads(threads)
    _state = (RunContext(cache), artifacts)


def _run(run: Run, alone: bool) -> Done:
    assert _state is not None
    context, artifacts = _state
    return execute(run, context, alone, artifacts)


class RayActor:
    """An actor of a Ray cluster; with a GPU of its own where the cluster has any."""

    def __init__(self, threads: int, gpus: int, cache: CacheSpec, isolate: bool) -> None:
        self._threads, self._gpus, self._cache, self._isolate = threads, gpus, cache, isolate
        self._start()

    def _start(self) -> None:
        import ray

        self.fresh = True
        kind: Any = ray.remote(num_cpus=self._threads, num_gpus=self._gpus, max_restarts=0)(_Actor)
        self._actor = kind.remote(self._threads, self._cache)

    def submit(self, run: Run) -> Future[Done]:
        """Start the run."""
        self.fresh = False
        return self._actor.run.remote(run, self._isolate).future()

    def restart(self) -> None:
        """End the actor, take a new one."""
        self.close()
        self._start()

    def close(self) -> None:
        """End the actor."""
        import ray

        ray.kill(self._actor)


class _Actor:
    def __init__(self, threads: int, cache: CacheSpec) -> None:
        torch.set_num_threads(threads)
        self.context = RunContext(cache)

    def run(self, run: Run, alone: bool) -> Done:
        return execute(run, self.context, alone)


def make_workers(
    name: Name,
    workers: int,
    cache: CacheSpec,
    isolate: bool = False,
    artifacts: Path | None = None,
    address: str | None = None,
    progress: Progress = ignore_progress,
) -> list[Worker]:
    """Workers of one kind.

    Args:
        workers: how many; `here` has one.
        isolate: a process of its own for every run, so `here` becomes one process.
        artifacts: folder in which the artifacts of reported runs are kept.
        address: of the Ray cluster; None: the one that the environment names, or one on this machine.

    Raises:
        ConfigError: more than one worker in this process, or artifacts from a cluster.
        MissingExtraError: Ray is not installed.
    """
    threads = threads_of(workers)
    refuse(name, workers, artifacts is not None)
    if name == "here" and not isolate:
        return [Here(cache, artifacts, progress)]
    if name != "ray":
        return [Process(place, threads, cache, artifacts, isolate) for place in range(workers)]
    return _on_ray(workers, cache, isolate, address)


def threads_of(workers: int) -> int:
    """Threads of each of so many processes on this machine."""
    return max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // workers))


def refuse(name: Name, workers: int, artifacts: bool) -> None:
    """What cannot go together, before anything is read.

    Raises:
        ConfigError: more than one worker in this process, or artifacts from a cluster.
        MissingExtraError: Ray is not installed.
    """
    if name == "here" and workers > 1:
        raise ConfigError("--workers: --executor here has one; use --executor pool")
    if name == "ray" and artifacts:
        raise ConfigError("--artifacts: a cluster's workers may have no folder in common; use --executor pool")
    if name == "ray" and find_spec("ray") is None:
        raise MissingExtraError("--executor ray needs Ray: pip install 'softprompt[ray]'")


def _on_ray(workers: int, cache: CacheSpec, isolate: bool, address: str | None) -> list[Worker]:
    """Actors that the cluster has room for: one that it has not would wait for ever."""
    import ray

    if not ray.is_initialized():
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False)
        except ConnectionError as error:
            raise ConfigError(f"--address {address}: no Ray cluster answers there ({error})".splitlines()[0]) from None
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    processors, gpus = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("CPU", "GPU"))
    if workers > processors or 0 < gpus < workers:
        has = f"{processors} processors" + (f" and {gpus} GPUs" if gpus else "")
        raise ConfigError(f"--workers {workers}: the cluster has {has}; use fewer")
    smallest = min(int(node.get("CPU", 0)) or processors for node in nodes)
    threads = max(1, min(processors // workers, smallest))
    return [RayActor(threads, 1 if gpus else 0, cache, isolate) for _ in range(workers)]
