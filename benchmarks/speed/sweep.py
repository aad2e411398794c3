"""What a sweep costs: many trials on one encoding against one trial, each by `softprompt sweep` in a fresh process."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from softprompt.benchmarks.compare.parent import end_with
from softprompt.errors import SoftpromptError
from softprompt.storage import write_json
from softprompt.types import Progress, ignore_progress

SWEEP = "sweep"
MODULE = "softprompt.benchmarks.speed.sweep"
RATES = (0.01, 0.02, 0.03, 0.05, 0.1)  # around the infix' own, 0.05
SEEDS = (0, 1, 2, 3)
ALONE = (0.05, 0)  # the trial that runs by itself: the default rate, the first seed


def measure(
    base: str,
    task: str | dict[str, Any] = "movie-reviews",
    train: dict[str, Any] | None = None,
    rates: Sequence[float] = RATES,
    seeds: Sequence[int] = SEEDS,
    alone: tuple[float, int] = ALONE,
    progress: Progress = ignore_progress,
    inside: Path | None = None,
) -> dict[str, Any]:
    """Infix trials at the method's default settings: one, then all rates × seeds.

    Args:
        train: settings of training; the method's defaults where it is empty.
        alone: rate and seed of the trial that runs by itself.
        inside: folder for what the trials write, which is removed; by default that of temporary files.

    Returns:
        The row of the table. `our_seconds` are those of the sweep, `peer_seconds` those of the trial alone. Both run
        from the first row that is tokenized to the last metric on dev. They include encoding, but not loading the base
        and the file of rows. `ratio` divides one by the other, `process_ratio` the times of the whole processes, from
        start to exit. `cpu_ratio` divides their processor times, which hardly depend on other users of the machine
        (None on Windows, which does not count them so).

    Raises:
        SoftpromptError: a process failed; its last line.
    """
    with _working_folder(inside) as folder:
        run = folder / "run.yaml"  # JSON is YAML
        write_json(run, {"base": base, "task": task, "method": "infix", "train": train or {}})
        progress(f"{SWEEP}, one trial alone", 0, 2)
        one = _sweep(run, [alone[0]], [alone[1]])
        progress(f"{SWEEP}, {len(rates) * len(seeds)} trials", 1, 2)
        many = _sweep(run, rates, seeds)
        progress(f"{SWEEP}, done", 2, 2)
    count = len(many["trials"])
    return {
        "name": SWEEP,
        "method": "infix",
        "prompt_length": None,
        "peer": f"ours, 1 trial instead of {count}",
        "trials": count,
        "rates": list(rates),
        "seeds": list(seeds),
        "our_seconds": many["work"],
        "peer_seconds": one["work"],
        "ratio": many["work"] / one["work"],
        "process_ratio": many["process_seconds"] / one["process_seconds"],
        "cpu_ratio": many["cpu"] / one["cpu"] if one["cpu"] else None,
        "cpu_seconds": [one["cpu"], many["cpu"]],
        "encode_seconds": [one["encode_seconds"], many["encode_seconds"]],
        "process_seconds": [one["process_seconds"], many["process_seconds"]],
        "trial_seconds": [sum(trial["seconds"].values()) for trial in many["trials"]],
        "speedup": None,
        "memory_ratio": None,
        "losses_equal": None,
    }


def _sweep(run: Path, rates: Sequence[float], seeds: Sequence[int]) -> dict[str, Any]:
    """The report of `softprompt sweep`, with the seconds of its trials (`work`) and of the process."""
    to = run.parent / f"of-{len(rates) * len(seeds)}"
    settings = [f"train.lr={','.join(map(str, rates))}", f"seed={','.join(map(str, seeds))}"]
    began, cpu = time.perf_counter(), _cpu_of_children()
    done = subprocess.run(
        [sys.executable, "-m", MODULE, str(os.getpid()), "sweep", str(run), *settings, "--out", str(to)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        start_new_session=True,  # the terminal's signals end it through this process
    )
    took, cpu = time.perf_counter() - began, _cpu_of_children() - cpu
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SoftpromptError(f"softprompt sweep ended with exit code {done.returncode}: {last}")
    report = json.loads((to / "sweep.json").read_text("utf-8"))
    work = sum(sum(trial["seconds"].values()) for trial in report["trials"])
    return {**report, "work": work, "process_seconds": took, "cpu": cpu}


@contextlib.contextmanager
def _working_folder(inside: Path | None) -> Iterator[Path]:
    """A folder for the time of a `with`; of a killed process it is named as `holding.remove_leftovers` removes it."""
    if inside is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
        return
    folder = inside / f".{SWEEP}.{secrets.token_hex(4)}.tmp"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cpu_of_children() -> float:
    """Seconds of processor time of processes that have ended; 0 on Windows."""
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":  # `softprompt sweep` in a process that ends with the one that started it
    from softprompt.cli import main

    end_with(int(sys.argv.pop(1)))
    main()
