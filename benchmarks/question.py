"""What it costs to ask behind the text: the instruction in front of it, or the same words as `template.question` behind it.

    python -m softprompt.benchmarks.question --out benchmarks/results/question

Trains `infix` on SmolLM2 with its defaults on 1,024 rows of each of three sentiment tasks, with three seeds, and tests on
1,000 other rows. A run whose record exists is not made again. Only the place of the words differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from softprompt.base import Base
from softprompt.benchmarks import provenance
from softprompt.metrics.variance import ALPHA, variance_of_difference
from softprompt.storage import write_json
from softprompt.tasks import Task
from softprompt.training import train

TASKS = ("movie-reviews", "product-reviews", "tweets")
SEEDS = (0, 1, 2)
FRONT, BEHIND, SHARED = "front", "behind", "shared"
PLACES = (FRONT, BEHIND, SHARED)
SHARED_INSTRUCTION = "Read the text, then follow the instruction behind it.\n\n"


def task_at(name: str, place: str) -> Task:
    """The ready task with its instruction at a place.

    Args:
        place: `front`, as the ready task has it; `behind` the text, with nothing in front; `shared`, behind the text with an
            instruction in front that all tasks have.
    """
    spec = Task.load(name).spec.model_dump(mode="json", exclude_none=True)
    template = spec["template"]
    if place != FRONT:
        words = template.pop("instruction").strip()
        template["question"] = f"\n\n{words}"
        if place == SHARED:
            template["instruction"] = SHARED_INSTRUCTION
    return Task.load(spec)


def run(base: Base, name: str, place: str, seed: int) -> dict[str, Any]:
    """Train once, and test: the record."""
    task = task_at(name, place)
    began = time.process_time()
    result = train(base, task, "infix", seed=seed, test=True)
    seconds = time.process_time() - began
    tested = result.metrics["test"]
    return {
        "task": name,
        "place": place,
        "seed": seed,
        "accuracy": tested.estimate.value,
        "log_loss": tested.nll,
        "right": "".join(str(int(outcome.predicted == outcome.gold)) for outcome in tested.outcomes),  # of each row
        "processor_seconds": seconds,
        **provenance.stamp(),
    }


def path_of(out: Path, name: str, place: str, seed: int) -> Path:
    """The record's file."""
    return out / f"{name}-{place}-{seed}.json"


def measure(out: Path, places: Sequence[str]) -> None:
    """All runs that have no record yet, seed by seed."""
    out.mkdir(parents=True, exist_ok=True)
    wanted = [(name, place, seed) for seed in SEEDS for place in places for name in TASKS]
    missing = [run_ for run_ in wanted if not path_of(out, *run_).exists()]
    base = Base.load("smollm2") if missing else None
    for count, (name, place, seed) in enumerate(missing, 1):
        assert base is not None
        record = run(base, name, place, seed)
        write_json(path_of(out, name, place, seed), record)
        told = f"accuracy {record['accuracy']:.3f}, log loss {record['log_loss']:.3f}"
        print(f"{count}/{len(missing)} {name} {place} seed {seed}: {told}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Cost:
    """A place against the front, on one task or on all of them.

    Attributes:
        front, there: mean accuracy over seeds.
        log_loss_front, log_loss: mean over seeds, in nats.
        difference, interval: of the accuracy, there minus in front; 95 % over seeds and rows.
    """

    task: str
    place: str
    front: float
    there: float
    log_loss_front: float
    log_loss: float
    difference: float
    interval: tuple[float, float]


def costs(out: Path) -> Iterator[Cost]:
    """Each place on each task, and on all tasks together, of which all seeds have records."""
    for place in PLACES[1:]:
        held = {name: _held(out, name, place) for name in TASKS}
        fronts = {name: _held(out, name, FRONT) for name in TASKS}
        if not all([*held.values(), *fronts.values()]):
            continue
        for name in TASKS:
            yield _cost(name, place, [fronts[name]], [held[name]])
        yield _cost("all", place, list(fronts.values()), list(held.values()))


def _held(out: Path, name: str, place: str) -> list[dict[str, Any]]:
    """The records of all seeds; none where one is missing."""
    paths = [path_of(out, name, place, seed) for seed in SEEDS]
    if not all(path.exists() for path in paths):
        return []
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _cost(name: str, place: str, front: list[list[dict[str, Any]]], there: list[list[dict[str, Any]]]) -> Cost:
    """The rows of several tasks stand side by side [seeds, rows]."""
    one, other = (
        np.concatenate([[list(map(int, record["right"])) for record in task] for task in side], 1)
        for side in (there, front)
    )
    losses = [float(np.mean([record["log_loss"] for task in side for record in task])) for side in (front, there)]
    half = float(variance_of_difference(one, other, 1.0).quantile(1 - ALPHA / 2))
    difference = float(one.mean() - other.mean())
    interval = difference - half, difference + half
    return Cost(name, place, float(other.mean()), float(one.mean()), losses[0], losses[1], difference, interval)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/question"))
    parser.add_argument("--places", nargs="+", choices=PLACES, default=PLACES, help="default: all")
    asked = parser.parse_args()
    measure(asked.out, list(dict.fromkeys([FRONT, *asked.places])))
    for cost in costs(asked.out):
        low, high = cost.interval
        told = f"{cost.difference:+.3f} [{low:+.3f}, {high:+.3f}]"
        print(f"{cost.task}, {cost.place}: {cost.there:.3f} against {cost.front:.3f}, {told}")


if __name__ == "__main__":
    main()
