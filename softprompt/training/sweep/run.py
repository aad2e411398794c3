"""A sweep from settings to its report: all combinations of values, or points that Optuna chooses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...interrupts import explained
from ...parallel import fail_together, processes
from ...run_reader import load_run
from ...storage import write_json
from ...types import Notice, Progress, ignore_notice, ignore_progress, named
from ..keeping import best_of
from ..places import check_run_folders, earlier_report, work_folder
from .search import search
from .space import Point, Setting, corners, grid, ranges_around, read_settings
from .study import STUDY, Ended, check_optuna
from .trials import SweepContext, Trial

REPORT = "sweep.json"


@fail_together
def sweep(
    run: Path,
    settings: list[str],
    to: Path,
    test: bool = False,
    progress: Progress = ignore_progress,
    notice: Notice = ignore_notice,
    optuna: int | None = None,
    prune: bool = True,
) -> dict[str, Any]:
    """Train every combination, or what Optuna chooses; choose by dev; evaluate the chosen one on test if asked.

    Args:
        settings: `key=a,b,c`; where Optuna chooses also `key=low..high` and `key=low..high:log`. It chooses by the dev log
            loss; where nothing varies it searches the learning rate and the length round the run's own.
        optuna: trials of its study in all, those of earlier calls included; None trains every combination.
        prune: give up runs whose dev log loss is above the median of the runs before.

    Returns:
        {"trials": [{"name", "settings", "dev", "dev_nll", "best_step", "truncated", "seconds"}], "best", "seconds",
        "encode_seconds", "test", "earlier"}, also written to `sweep.json`. The best trial is chosen as a run chooses its best
        dev evaluation (`best_of`). "test" is the best trial's, if it was ever asked for; "earlier" are trials of earlier calls
        that are not in this one. A search adds "pruned": [{"name", "why", "step", "dev_nll"}], "searched", "objective" and
        "study".

    Raises:
        SoftpromptError: a combination that cannot be run, said before the first is; see `train`. Of a range its ends are
            looked at.
    """
    began = time.perf_counter()
    wanted, context = read_settings(settings), SweepContext(progress, notice)
    if optuna is not None:
        check_optuna()
    points = grid(run, wanted) if optuna is None else corners(run, wanted)
    files = [REPORT] if optuna is None else [REPORT, STUDY]
    with work_folder(to, files), explained(lambda: "the same command resumes the remaining trials"):
        more: dict[str, Any] = {}
        if optuna is None:
            trials = _every(points, to, context)
        else:
            trials, more = _searched(run, wanted, points, to, context, optuna, prune)
        best: Trial = best_of([trial.compared() for trial in trials])["trial"]
        if test:
            chosen = Point(best.name, best.settings, load_run(run, [*best.settings], whole=True))
            best = context.trial(chosen, to / best.name, progress, test=True)
        report = {**_report(trials, best, to), **more, "seconds": time.perf_counter() - began}
        if processes().main:
            write_json(to / REPORT, report)
    return report


def _report(trials: Sequence[Trial], best: Trial, to: Path) -> dict[str, Any]:
    """What is reported about the trials, and those of earlier calls."""
    report: dict[str, Any] = {
        "trials": [trial.as_dict() for trial in trials],
        "best": best.name,
        "encode_seconds": sum(trial.seconds["encode"] for trial in trials),
    }
    if best.test is not None:
        report["test"] = best.test.as_dict()
    names, before = {trial.name for trial in trials}, earlier_report(to / REPORT)
    others = [*before.get("earlier", []), *before.get("trials", [])]
    if earlier := [trial for trial in others if trial.get("name") not in names]:
        report["earlier"] = earlier
    return report


def _every(points: Sequence[Point], to: Path, context: SweepContext) -> list[Trial]:
    """All of these runs, one after the other."""
    check_run_folders([to / each.name for each in points])
    context.check(points)
    return [
        context.trial(each, to / each.name, named(context.progress, f"{place}/{len(points)} {each.name}"))
        for place, each in enumerate(points, 1)
    ]


def _searched(
    run: Path,
    wanted: list[Setting],
    points: list[Point],
    to: Path,
    context: SweepContext,
    trials: int,
    prune: bool,
) -> tuple[list[Trial], dict[str, Any]]:
    """The runs that Optuna has chosen, and what the report says of the search."""
    start: dict[str, Any] = {}
    context.check(points)
    if not any(setting.varies for setting in wanted):
        ranges = ranges_around(context.bound(points[0]), points[0].spec.train, [setting.key for setting in wanted])
        wanted, start = [*wanted, *ranges], {each.key: value for each, value in ranges.items()}
        points = corners(run, wanted)
        context.check(points)
    searched = [str(setting) for setting in wanted if setting.varies]
    context.notice(f"searching {' '.join(searched)} for the lowest dev log loss, {trials} trials in all")
    first = context.bound(points[0])
    ended: Ended = search(run, wanted, to, context, trials, prune, start, points, [first.digest, first.base.digest])
    more = {"pruned": ended.pruned, "searched": searched, "objective": "dev_nll", "study": STUDY}
    return ended.trials, more
