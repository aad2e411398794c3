"""`softprompt bench speed`: steps of ours against the peer's, interleaved in one run, each side its own process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from softprompt.benchmarks.speed import schedule
from softprompt.benchmarks.speed.cases import CASES, ENCODING, EXTRA, MIXED, NAMES, NO_PEER, Case
from softprompt.benchmarks.speed.grid import METHODS, points_of, run_grid
from softprompt.benchmarks.speed.kept import ROWS, Kept, settings_of
from softprompt.benchmarks.speed.scaling import slopes
from softprompt.benchmarks.speed.session import Row, Session
from softprompt.benchmarks.speed.sides import compare
from softprompt.benchmarks.speed.sweep import SWEEP, measure
from softprompt.benchmarks.speed.turns import Turns
from softprompt.benchmarks.speed.without_peer import encoding, encoding_scaling, mixed
from softprompt.config import suggest
from softprompt.errors import ConfigError, MissingExtraError
from softprompt.interrupts import explained
from softprompt.machine import processor_name
from softprompt.parallel import processes
from softprompt.training.places import work_folder
from softprompt.types import Notice, Progress, ignore_notice, ignore_progress

MIXED_TIMES, MIXED_REACH = 2, 0.05  # its steps are short, and its ratio is near one
LEFT_OUT = [f"{name}: {why}" for name, why in NO_PEER.items()]
Measures = dict[str, Callable[[Progress], Row]]


def main(
    base: str,
    steps: int | None = None,
    only: list[str] | None = None,
    progress: Progress = ignore_progress,
    grid: str | None = None,
    *,
    folder: Path | None = None,
    fresh: bool = False,
    notice: Notice = ignore_notice,
) -> dict[str, Any]:
    """Run the cases, or a grid of sizes; with a folder, those whose rows it does not hold yet.

    Args:
        base: bundled name or folder.
        steps: measured steps per side and case, after one that warms up (counted for the losses). None: until the interval
            of a case is narrow (see `turns.Turns`).
        only: names of cases; of methods for a grid. Default: the standard cases; soft prompts, infix and LoRA in a grid.
        grid: sizes (see `grid.sizes`) at which methods are measured in place of the cases.
        folder: keeps each row as soon as it is measured.
        fresh: measure again what the folder holds.

    Returns:
        {"rows": [...], "scaling": [...], "left_out": [...], "machine": {...}, "versions": {...}}. A case whose losses differ
        where they must be equal has `losses_equal` False and no speeds. `scaling` are exponents of cost (see `scaling.py`).

    Raises:
        ConfigError: no such case, method or size; the folder's rows were measured with something else.
        MissingExtraError: PEFT is not installed.
        Interrupted: by a signal; what is kept.
    """
    from softprompt.base import bundled

    processes().only_one("bench speed")
    _check_names(only or [], grid)
    versions = _versions()
    where = str(bundled.get(base)) if base in bundled.BUNDLED else base
    turns = Turns.of(steps)
    points = {} if grid is None else points_of(only or ["soft", "infix", "lora"], grid)
    measures = _measures(where, steps, only, folder) if grid is None else {}
    names = [case.name for cases in points.values() for case in cases] or list(measures)
    with contextlib.ExitStack() as stack:
        stack.enter_context(work_folder(folder, [ROWS], [SWEEP]))
        kept = Kept(folder, settings_of(base, where, str(turns), versions))
        if fresh:
            kept.forget(names)
        kept.refuse_others(names)

        def spans() -> dict[str, schedule.Span]:
            return _spans(points, measures, steps, schedule.Speed.measured(where))

        session = Session(names, kept, spans, progress, notice, fresh)
        stack.enter_context(explained(session.after_a_stop))
        session.tell_plan()
        measured = _of_grid(session, where, points, turns) if points else _of_cases(session, measures)
        session.tell_end()
    machine = {"processor": processor_name(), "threads": torch.get_num_threads()}
    return {**measured, "machine": machine, "versions": versions}


def _of_grid(session: Session, where: str, points: dict[str, list[Case]], turns: Turns) -> dict[str, Any]:
    """What `main` returns of a grid's rows."""
    rows, left_out = run_grid(session, where, points, turns)
    return {"rows": rows, "scaling": slopes(rows), "left_out": left_out}


def _of_cases(session: Session, measures: Measures) -> dict[str, Any]:
    """What `main` returns of the cases' rows."""
    rows = [session.row(name, measured) for name, measured in measures.items()]
    scaling = [one for row in rows if row["name"] == ENCODING for one in encoding_scaling(row)]
    return {"rows": rows, "scaling": scaling, "left_out": LEFT_OUT}


def _check_names(only: list[str], grid: str | None) -> None:
    known = list(NAMES) if grid is None else list(METHODS)
    for name in only:
        if name in NO_PEER:
            raise ConfigError(f"no case {name!r}: {NO_PEER[name]}")
        if name not in known:
            raise ConfigError(f"no case {name!r}{suggest(name, known)}")


def _versions() -> dict[str, str]:
    try:
        return {name: version(name) for name in ("softprompt", "torch", "transformers", "peft")}
    except ModuleNotFoundError as error:
        raise MissingExtraError("bench speed compares with PEFT: pip install 'softprompt[peft]'") from error


def _measures(base: str, steps: int | None, only: list[str] | None, folder: Path | None) -> Measures:
    """How each of the cases that are wanted is measured, in their order."""
    every: Measures = {case.name: partial(compare, base, case, Turns.of(steps)) for case in CASES}
    every[MIXED] = partial(mixed, base, _mixed_turns(steps))
    standard = list(every)
    every |= {case.name: partial(compare, base, case, Turns.of(steps)) for case in EXTRA}
    every[ENCODING] = partial(encoding, base)
    every[SWEEP] = lambda progress: measure(base, progress=progress, inside=folder)
    return {name: measured for name, measured in every.items() if name in (only or standard)}


def _mixed_turns(steps: int | None) -> Turns:
    return Turns.of(steps, times=3 if steps else MIXED_TIMES, reach=MIXED_REACH)


def _spans(
    points: dict[str, list[Case]], measures: Measures, steps: int | None, speed: schedule.Speed
) -> dict[str, schedule.Span]:
    """Seconds that each point of a grid, or each of these cases, takes on a machine of this speed."""
    turns = Turns.of(steps)
    cases = {case.name: case for case in (*CASES, *EXTRA)}
    spans: dict[str, schedule.Span] = {}
    for method, of_method in points.items():
        spans |= {case.name: schedule.of_case(case, turns, speed, METHODS[method]) for case in of_method}
    for name in measures:
        if name in cases:
            spans[name] = schedule.of_case(cases[name], turns, speed)
        elif name == MIXED:
            spans[name] = schedule.of_mixed(_mixed_turns(steps), speed)
        else:
            spans[name] = schedule.of_whole(name, speed)
    return spans
