"""Which runs there are to make, and the making of them, in this process or in several."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from softprompt.benchmarks import provenance
from softprompt.benchmarks.compare.executors import threads_of
from softprompt.benchmarks.defaults import records
from softprompt.benchmarks.defaults.contender import Contender, Context
from softprompt.benchmarks.defaults.contenders import chosen
from softprompt.benchmarks.defaults.data import DataSet, files_of, read_data_set
from softprompt.benchmarks.defaults.records import Record
from softprompt.errors import ConfigError
from softprompt.storage import digest_of


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        folder: of CSV files.
        results: of records.
        tasks, contenders: by name; empty: all.
        rows: labelled rows of a run.
        test: test rows at most.
    """

    folder: Path
    results: Path
    tasks: tuple[str, ...] = ()
    contenders: tuple[str, ...] = ()
    seeds: tuple[int, ...] = tuple(range(8))
    rows: int = 128
    test: int = 500


@dataclass(frozen=True)
class Run:
    """One contender on one data set with the labelled rows of one seed."""

    path: Path
    contender: str
    seed: int

    @property
    def task(self) -> str:
        """The data set's name."""
        return self.path.stem


class Maker:
    """Makes runs one after the other; holds the bases and the data set of the last one."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.context = settings, Context()
        self._data: tuple[Path, DataSet] | None = None

    def data(self, path: Path) -> DataSet:
        """The data set of a file."""
        if self._data is None or self._data[0] != path:
            self._data = (path, read_data_set(path, self.settings.rows, self.settings.test))
        return self._data[1]

    def digest(self, data: DataSet, contender: Contender) -> str:
        """What a record's figures depend on, beside the seed and the code."""
        sizes = {"rows": self.settings.rows, "test": self.settings.test}
        return digest_of({"data": data.digest, "contender": contender.settings, **sizes})

    def make(self, run: Run) -> Record:
        """Make a run and write its record; what goes wrong becomes a record, too."""
        (contender,) = chosen([run.contender])
        data = self.data(run.path)
        began = provenance.processor_seconds()
        names: dict[str, Any] = {"task": data.name, "contender": contender.name, "seed": run.seed}
        names |= {"digest": self.digest(data, contender), "settings": contender.settings}
        try:
            train = data.draw(self.settings.rows, run.seed)
            prediction = contender.fit_predict(train, data.test, data.labels, run.seed, self.context)
            record = Record(**names, **records.measured(data, train, prediction))
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            record = Record(**names, status="failed", reason=reason)
        record.cpu_seconds = provenance.processor_seconds() - began
        records.write(self.settings.results, record)
        return record


def left_to_make(settings: Settings) -> tuple[list[Run], list[Record]]:
    """(runs without a record, or with one that failed; the records that are there), seed by seed.

    Raises:
        ConfigError: a record was made with another file, other sizes or other settings; an unknown contender.
        DataError: files that cannot be used.
    """
    maker, contenders = Maker(settings), chosen(settings.contenders)
    left, done = [], []
    for path in files_of(settings.folder, settings.tasks):
        data = maker.data(path)
        for contender in contenders:
            for seed in settings.seeds:
                file = records.path_of(settings.results, data.name, contender.name, seed)
                record = records.read(file) if file.exists() else None
                if record is None or record.status == "failed":
                    left.append(Run(path, contender.name, seed))
                    continue
                if record.digest != maker.digest(data, contender):
                    raise ConfigError(
                        f"{file}: was made with another data file, other --rows or --test, or other settings of "
                        "the contender; give another --out, or delete it"
                    )
                done.append(record)
    return sorted(left, key=lambda run: run.seed), done


_maker: Maker | None = None  # of a worker process


def _begin(settings: Settings, threads: int) -> None:
    """Set a worker process up; Ctrl-C is the business of the process that started it."""
    global _maker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _maker = Maker(settings)


def _make(run: Run) -> Record:
    assert _maker is not None
    return _maker.make(run)


def made(settings: Settings, runs: Sequence[Run], workers: int) -> Iterator[Record]:
    """Make runs, each record as soon as it is written. When the caller stops, worker processes end at once."""
    if workers == 1:
        maker = Maker(settings)
        yield from map(maker.make, runs)
        return
    start = multiprocessing.get_context("spawn")
    with start.Pool(workers, _begin, (settings, threads_of(workers))) as pool:
        yield from pool.imap_unordered(_make, runs)


def make_all(settings: Settings, workers: int = 1, tell: Callable[[str], None] = print) -> list[Record]:
    """Make all runs that are left; tell each one's result and the time that the rest may take.

    Returns:
        The records that were made now.

    Raises:
        ConfigError, DataError: see `left_to_make`.
    """
    left, done = left_to_make(settings)
    total, fresh = len(left) + len(done), []
    tell(f"{total} runs, {len(done)} of them made already")
    waiting = [(run.task, run.contender, run.seed) for run in left]
    began = time.perf_counter()
    for record in made(settings, left, workers):
        fresh.append(record)
        waiting.remove((record.task, record.contender, record.seed))
        said = f"accuracy {record.accuracy:.3f}" if record.status == "done" else f"failed: {record.reason}"
        which = f"[{total - len(waiting)}/{total}] {record.task} {record.contender}-{record.seed}"
        rest = seconds_left([contender for _, contender, _ in waiting], [*done, *fresh]) / workers
        tell(f"{which}: {said}, {record.seconds:.0f} s; about {rest / 60:.0f} min left")
    tell(f"{len(fresh)} runs made in {(time.perf_counter() - began) / 60:.0f} min")
    return fresh


def seconds_left(waiting: Sequence[str], known: Sequence[Record]) -> float:
    """What runs of these contenders may take: as long as the known ones of the same, else as all known ones, in the mean."""
    spent: dict[str, list[float]] = {}
    for record in known:
        if record.status == "done":
            spent.setdefault(record.contender, []).append(record.seconds)
    means = {name: sum(own) / len(own) for name, own in spent.items()}
    usual = sum(means.values()) / len(means) if means else 0.0
    return sum(means.get(name, usual) for name in waiting)
