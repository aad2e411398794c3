"""The study of a search: which points Optuna has chosen and what came of each, in a file that a killed search goes on from.

Only the first of several processes has one.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ConfigError, MissingExtraError, SoftpromptError
from ...types import Notice
from .space import Choices, Range, Setting, name_of
from .trials import Trial

if TYPE_CHECKING:
    import optuna

STUDY = "study.db"
NAME = "softprompt"  # of the study in its file
RANDOM_TRIALS = 8  # before the sampler learns from them (TPE, Bergstra et al. 2011)
FULL_TRIALS = 5  # that end before one is pruned
FREE_EVALUATIONS = 2  # of each run that never prune it: its learning rate is still going up
_RUN, _RESULT, _PRUNED, _SEARCH = "run", "result", "pruned", "search"  # attributes of trials and of the study


@dataclass(frozen=True)
class Ended:
    """What came of the points that were tried.

    Attributes:
        trials: runs that ended, each once, in the order in which they were chosen.
        pruned: {"name", "why" (`median` or `not_finite`), "step", "dev_nll"} of each run that was given up.
    """

    trials: list[Trial]
    pruned: list[dict[str, Any]]


def check_optuna() -> None:
    """
    Raises:
        MissingExtraError: Optuna is not installed.
    """
    if importlib.util.find_spec("optuna") is None:
        raise MissingExtraError("--optuna needs Optuna, which is not installed: pip install 'softprompt[optuna]'")


class Study:
    """A study of Optuna's in a file; see `opened`.

    Attributes:
        done: trials that had ended when it was asked.

    Args:
        start: the point that is tried first, by key; empty where Optuna chooses it.
        seed: of the sampler. It draws each trial's values from the seed and the number of ended trials. So a search
            that was cut short draws the same values as an unbroken one.
    """

    def __init__(
        self, study: optuna.Study, path: Path, settings: Sequence[Setting], start: dict[str, Any], seed: int
    ) -> None:
        self._study, self._path, self._settings, self._start, self._seed = study, path, settings, start, seed
        self._trial: optuna.Trial | None = None
        self.done = 0

    def ask(self, trials: int, notice: Notice) -> tuple[str, ...] | None:
        """A value for each setting: of the trial that was cut short, else of a new one; None when `trials` have ended.

        A point that was tried before is not tried again: it counts, with what came of it.
        """
        with plain_errors(self._path):
            while len(done := self._finished()) < trials:
                self.done = len(done)
                values = self._next()
                name = name_of(self._settings, values)
                known = next((trial for trial in done if trial.user_attrs.get(_RUN) == name), None)
                self.trial.set_user_attr(_RUN, name)
                if known is None:
                    return values
                notice(f"trial {self.done + 1} is {name} again; its result is known")
                self._repeat(known)
        return None

    @property
    def trial(self) -> optuna.Trial:
        """The one that is being made."""
        assert self._trial is not None
        return self._trial

    def _next(self) -> tuple[str, ...]:
        """The values of the trial that was cut short, or of a new one."""
        import optuna

        states = optuna.trial.TrialState
        wanted = {setting.key: _distribution(setting) for setting in self._settings if setting.varies}
        self._trial = None
        for one in self._study.get_trials(states=[states.RUNNING]):
            if one.params.keys() == wanted.keys():
                self._trial = optuna.Trial(self._study, one._trial_id)
            else:  # it was killed while its values were written
                self._study.tell(one.number, state=states.FAIL)
        if self._trial is None:
            # mixed, as numpy's seeds 0 and 3 begin with nearly the same two numbers
            mixed = np.random.SeedSequence([self._seed % 2**64, self.done]).generate_state(1)
            self._study.sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=int(mixed[0]))
            if self._start and not self.done and not self._study.get_trials(states=[states.WAITING]):
                self._study.enqueue_trial(self._start)
            self._trial = self._study.ask(wanted)
        return tuple(_text(setting, self._trial.params) for setting in self._settings)

    def _repeat(self, known: optuna.trial.FrozenTrial) -> None:
        """End the trial as one of the same point has ended."""
        import optuna

        for at, value in known.intermediate_values.items():
            self.trial.report(value, at)
        if known.state == optuna.trial.TrialState.COMPLETE:
            self._study.tell(self.trial, known.value)
        else:
            self._study.tell(self.trial, state=known.state)

    def reported(self) -> set[int]:
        """Dev evaluations of the trial, by number, that are known: a run that goes on makes some again."""
        return {*self._study.trials[self.trial.number].intermediate_values}

    def report(self, evaluation: int, nll: float) -> None:
        """Keep a dev evaluation of the trial."""
        with plain_errors(self._path):
            self.trial.report(nll, evaluation)

    def is_worse(self) -> bool:
        """Whether the trial's best log loss so far is above the median of other trials at the same evaluation."""
        with plain_errors(self._path):
            return self.trial.should_prune()

    def end(self, trial: Trial) -> None:
        """The run has ended."""
        with plain_errors(self._path):
            self.trial.set_user_attr(_RESULT, trial.as_dict())
            self._study.tell(self.trial, trial.dev_nll)

    def give_up(self, why: str, step: int, nll: float | None) -> None:
        """The run was pruned at this step, or could not go on."""
        import optuna

        with plain_errors(self._path):
            self.trial.set_user_attr(_PRUNED, {"why": why, "step": step, "dev_nll": nll})
            self._study.tell(self.trial, state=optuna.trial.TrialState.PRUNED)

    def ended(self) -> Ended:
        """What came of all points."""
        with plain_errors(self._path):
            attributes = [trial.user_attrs for trial in self._finished()]
        trials = [Trial.from_dict(attrs[_RESULT]) for attrs in attributes if _RESULT in attrs]
        pruned = [{"name": attrs[_RUN], **attrs[_PRUNED]} for attrs in attributes if _PRUNED in attrs]
        return Ended(trials, pruned)

    def _finished(self) -> list[optuna.trial.FrozenTrial]:
        import optuna

        states = optuna.trial.TrialState
        return self._study.get_trials(deepcopy=False, states=[states.COMPLETE, states.PRUNED])


def _distribution(setting: Setting) -> optuna.distributions.BaseDistribution:
    import optuna

    if isinstance(setting, Choices):
        return optuna.distributions.CategoricalDistribution(setting.values)
    if setting.whole:
        return optuna.distributions.IntDistribution(int(setting.low), int(setting.high), log=setting.log)
    return optuna.distributions.FloatDistribution(setting.low, setting.high, log=setting.log)


def _text(setting: Setting, drawn: Mapping[str, Any]) -> str:
    """The value of a setting in a trial, as it is written."""
    if not setting.varies:
        return setting.ends[0]
    value = drawn[setting.key]
    return setting.text(value) if isinstance(setting, Range) else str(value)


@contextlib.contextmanager
def opened(
    folder: Path, settings: Sequence[Setting], start: dict[str, Any], seed: int, what: str, prune: bool
) -> Iterator[Study]:
    """The study in a folder, for the time of a `with`; Optuna says nothing meanwhile but errors.

    Args:
        what: digest of the run that is searched.
        prune: give up runs that are worse than the median of others.

    Raises:
        ConfigError: it is of another search.
        SoftpromptError: the file cannot be read or written.
    """
    import optuna
    from sqlalchemy.engine import URL

    path = folder / STUDY
    searched = {"settings": [str(setting) for setting in settings if setting.varies], "run": what}
    pruner = optuna.pruners.MedianPruner(n_startup_trials=FULL_TRIALS, n_warmup_steps=FREE_EVALUATIONS + 1)
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = None
    try:
        with plain_errors(path):
            url = URL.create("sqlite", database=str(path)).render_as_string()
            storage = optuna.storages.RDBStorage(url)
            study = optuna.create_study(
                storage=storage,
                study_name=NAME,
                direction="minimize",
                load_if_exists=True,
                pruner=pruner if prune else optuna.pruners.NopPruner(),
            )
            known = study.user_attrs.get(_SEARCH)
            if known is None:
                study.set_user_attr(_SEARCH, searched)
        if known not in (None, searched):
            told = (
                " ".join(known["settings"])
                if known["settings"] != searched["settings"]
                else "another run, data or base"
            )
            raise ConfigError(f"{path} holds the study of another search ({told}); use another --out")
        yield Study(study, path, settings, start, seed)
    finally:
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()
        optuna.logging.set_verbosity(level)


@contextlib.contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """What Optuna and its database say of a file that cannot be used, as one line."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        reason = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]
        raise SoftpromptError(
            f"{path}: the study cannot be read or written ({reason}); remove the file to begin the search anew (runs that have "
            "ended are kept), or use another --out"
        ) from error
