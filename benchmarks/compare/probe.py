"""What a suite will take, from a step of each contender; and what its runs share."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from softprompt.answers import evaluate
from softprompt.benchmarks.compare.context import RunContext
from softprompt.benchmarks.compare.runs import Cell, Run, count
from softprompt.config import parse
from softprompt.errors import SoftpromptError
from softprompt.methods import make_method
from softprompt.prepared import Prepared
from softprompt.storage import write_json
from softprompt.training import TrainSpec
from softprompt.training.result import Result
from softprompt.training.run import train
from softprompt.types import Progress, ignore_progress

ROWS = 16  # evaluated
FITTED = 32  # training rows of what is solved and makes no steps


@dataclass(frozen=True)
class Cost:
    """What a contender takes, seconds.

    Attributes:
        step: one optimizer step.
        row: one evaluated row.
        encode: one row that is encoded; 0 where rows are not kept.
        plan: what runs how often, in words.
        context: digest of what rows are encoded behind; empty where none are kept.
        problem: why it could not be tried; empty otherwise.
    """

    step: float = 0.0
    row: float = 0.0
    encode: float = 0.0
    plan: str = ""
    context: str = ""
    problem: str = ""


def probe(
    cells: Sequence[Cell], context: RunContext, path: Path | None = None, progress: Progress = ignore_progress
) -> dict[str, Cost]:
    """A step of every contender on every base and task; what a file holds of an earlier call is not measured again,
    what could not be tried then is.

    Args:
        path: the file, written when all are measured.

    Returns:
        By `key_of(cell)`.
    """
    known = _read(path)
    keys = {key_of(cell): cell for cell in cells}
    found: dict[str, Cost] = {}
    for done, (key, cell) in enumerate(keys.items()):
        progress(f"trying a step: {cell.place.contender}", done, len(keys))
        found[key] = known.get(key) or _try(cell, context)
    if path is not None:
        write_json(path, {key: asdict(cost) for key, cost in (known | found).items()})
    return found


def key_of(cell: Cell) -> str:
    """Cells that cost the same per step and row."""
    batch = cell.train.get("batch_size", "")
    return " ".join([*cell.key, str(cell.contender.method), str(batch)])


def seconds(cell: Cell, cost: Cost) -> float:
    """Expected seconds of a cell, all of its runs together, by what a step and a row cost."""
    if cell.contender.kind != "method":
        return 0.0
    steps, evaluations = _steps(cell)
    finals, tests = len(cell.seeds), float((cell.test or 0) * (1 + len(cell.tests)))
    full = steps * cost.step + max(1, evaluations) * cell.dev * cost.row
    search = cell.search.cost if len(cell.rates) > 1 else 0.0
    draws = finals + 1 if cell.draws == "seeded" else 1
    if cell.draws == "folds":
        tests /= finals  # each run tests its fold only
    encoded = ((cell.place.size or 0) * draws + cell.dev + tests) * cost.encode
    return (search + finals) * full + finals * tests * cost.row + encoded


def total(cells: Sequence[Cell], costs: dict[str, Cost]) -> float:
    """Expected seconds of all cells in one process."""
    return sum(expected(cell, costs) for cell in cells)


def expected(cell: Cell, costs: dict[str, Cost]) -> float:
    """Expected seconds of a cell; 0 where nothing is known."""
    return seconds(cell, costs.get(key_of(cell), Cost()))


def shared(cells: Sequence[Cell], costs: dict[str, Cost]) -> list[str]:
    """Lines that say which runs use the same encoded rows."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        if context := costs.get(key_of(cell), Cost()).context:
            groups.setdefault(context, []).append(cell)
    lines = []
    for members in groups.values():
        names = ", ".join(dict.fromkeys(cell.place.contender for cell in members))
        runs, place = sum(count(cell) for cell in members), members[0].place
        lines.append(f"{place.task} on {place.base}: each row is encoded once for all {runs} runs of {names}")
    return lines


def _steps(cell: Cell) -> tuple[int, int]:
    """Optimizer steps of a whole run, and dev evaluations."""
    if cell.contender.default_lr is None:
        return 0, 0
    spec = _spec(cell)
    assert spec.max_steps and spec.eval_every
    return spec.max_steps, -(-spec.max_steps // spec.eval_every)


def _spec(cell: Cell) -> TrainSpec:
    return parse(TrainSpec, cell.train, "train").filled(make_method(cell.contender.method), cell.place.size or 1)


def _try(cell: Cell, context: RunContext) -> Cost:
    if cell.contender.kind != "method":
        return Cost(plan="a process of its own" if cell.contender.kind == "setfit" else "no base")
    run = Run(cell, "trial", cell.search.seed, None)
    try:
        base, task, rows = context.base(cell), context.asked(run), context.rows(run)
        learns = cell.contender.default_lr is not None
        spec = parse(TrainSpec, {**cell.train, "min_steps": None, "max_steps": 1, "epochs": 1}, "train")
        some = {"train": rows["train"][: _spec(cell).batch_size if learns else FITTED]}

        def a_step(reuse: Sequence[Prepared]) -> Result:
            how: dict[str, Any] = {"train": spec, "cache": context.cache, "seed": run.seed, "rows": some}
            return train(base, task, context.method(cell), reuse=reuse, check=False, **how)

        result = a_step(context.shared(cell))
        ready = result.prepared
        keeps = learns and ready.engine.plan.keeps_rows
        # short steps are many, and the first takes several times as long
        events = a_step([ready]).events if keeps else result.events
        times = [event["seconds"] for event in events if event["event"] == "step"]
        examples = ready.form.encode_rows(rows["dev"][:ROWS])
        if keeps:
            ready.engine.encode(examples)
        began = time.perf_counter()
        evaluate(ready, examples)
        row = (time.perf_counter() - began) / max(1, len(examples))
        kept = len(ready.splits["train"]) if keeps else 0
        context.keep(cell, ready)
        encode = result.seconds["encode"] / kept if kept else 0.0
        encoded_behind = ready.engine.context if keeps else ""
        return Cost(times[0] if times else 0.0, row, encode, ready.engine.plan.explain(), encoded_behind)
    except SoftpromptError as error:
        return Cost(problem=str(error))
    except Exception as error:
        return Cost(problem=f"{type(error).__name__}: {error}".splitlines()[0])


def _read(path: Path | None) -> dict[str, Cost]:
    if path is None or not path.is_file():
        return {}
    try:
        found = {key: Cost(**values) for key, values in json.loads(path.read_text(encoding="utf-8")).items()}
        return {key: cost for key, cost in found.items() if not cost.problem}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # measured again
