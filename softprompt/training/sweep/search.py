"""Points that Optuna chooses, each trained and judged by the dev log loss of what it keeps."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import SoftpromptError, TrainingError
from ...parallel import processes
from ...storage import digest_of
from ...types import ignore_progress, named
from ..loop import NotFiniteError
from .space import Point, Setting, point
from .study import Ended, Study, opened
from .trials import SweepContext


class PrunedError(SoftpromptError):
    """A run is given up: at the same dev evaluation half of the runs before it had a lower log loss."""


class Listener:
    """Hears the events of a trial's run, keeps its dev evaluations in the study, and ends the run where it is to be pruned.

    Attributes:
        step: of the last event that has one.
        nll: of the last dev evaluation; None before the first.
    """

    def __init__(self, study: Study) -> None:
        self._study, self._reported = study, study.reported()
        self._every, self._last = 1, 0
        self.step = 0
        self.nll: float | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        """Take the next event.

        Raises:
            PrunedError: the run is given up.
        """
        self.step = event.get("step", self.step)
        if event["event"] == "start" and event["train"]:
            self._every, self._last = event["train"]["eval_every"], event["train"]["max_steps"]
        if event["event"] != "dev":
            return
        self.nll = event["nll"]
        # evaluations are counted: runs with other batches make them at other steps
        evaluation = -(-self.step // self._every)
        if evaluation not in self._reported:
            self._reported.add(evaluation)
            self._study.report(evaluation, event["nll"])
        if evaluation < max(self._reported) or self.step == self._last:
            return  # it was decided when the run was here before; or nothing is saved
        if self._study.is_worse():
            raise PrunedError(f"pruned at step {self.step}, where half of the runs before had a lower dev log loss")


def search(
    run: Path,
    settings: Sequence[Setting],
    to: Path,
    context: SweepContext,
    trials: int,
    prune: bool,
    start: dict[str, Any],
    corners: Sequence[Point],
    data: Sequence[str],
) -> Ended:
    """Go on until so many trials have ended in the study of this folder; see `sweep`.

    Args:
        start: the point that is tried first, by key.
        corners: runs at the ends of what is searched.
        data: digests of the rows and of the base.

    Raises:
        TrainingError: all of them were given up.
    """
    parallel = processes()
    with contextlib.ExitStack() as stack:
        study = None
        if parallel.main:
            what = digest_of([list(data), [_what(each) for each in corners]])
            study = stack.enter_context(opened(to, settings, start, corners[0].spec.seed, what, prune))
        while values := parallel.from_main(study.ask(trials, context.notice) if study else None):
            _try(study, point(run, settings, values), to, context, trials)
        ended: Ended = parallel.from_main(study.ended() if study else Ended([], []))
    if not ended.trials:
        raise TrainingError(f"all {len(ended.pruned)} trials were pruned; search lower values of train.lr")
    return ended


def _try(study: Study | None, this: Point, to: Path, context: SweepContext, trials: int) -> None:
    """Train one point, and tell the study what came of it; of several processes all do so together."""
    if study is None:
        with contextlib.suppress(PrunedError, NotFiniteError):  # the first process tells of it
            context.trial(this, to / this.name, ignore_progress)
        return
    heard = Listener(study)
    try:
        progress = named(context.progress, f"{study.done + 1}/{trials} {this.name}")
        trial = context.trial(this, to / this.name, progress, on_event=heard)
    except (PrunedError, NotFiniteError) as error:
        context.notice(f"{this.name}: {error}")
        study.give_up("median" if isinstance(error, PrunedError) else "not_finite", heard.step, heard.nll)
    else:
        study.end(trial)


def _what(point: Point) -> dict[str, Any]:
    """What of a run decides its result, without its rows."""
    train = point.spec.train.model_copy(update={"report_to": None})
    return point.spec.model_copy(update={"train": train}).model_dump(mode="json", exclude={"cache"}, exclude_none=True)
