"""What all estimators share: settings, the way from tables to a trained prompt, saving, loading, pickling."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
from sklearn import exceptions
from sklearn.base import BaseEstimator

from ..artifact.manifest import BaseRecord
from ..base import Base
from ..base.bundled import BUNDLED
from ..base.shape import DTYPES
from ..data import Row
from ..ensemble import save_ensemble
from ..errors import ArtifactError, BaseModelError, ConfigError, DataError, InputError
from ..html import summary_html
from ..methods import make_method
from ..runfile import check_seed
from ..tasks import Task
from ..tasks.proposed import Kind, propose
from ..training import Result, train
from ..values import plain
from .choose import resolve_auto
from .dividing import divide
from .fitted import Fitted
from .inputs import read_table
from .reading import Reads
from .shared import CACHE, LOCK, MissingBaseError, base_of, base_of_digest, keep_rows, kept_rows
from .shown import watching


class NotFittedError(InputError, exceptions.NotFittedError):
    """An estimator that is asked before it has learned anything."""


class SettingError(ConfigError, InputError):
    """A setting of an estimator that cannot be used."""


@contextmanager
def own_errors() -> Iterator[None]:
    """Errors of ours are ValueErrors as well, as whoever calls a scikit-learn estimator expects."""
    try:
        yield
    except InputError:
        raise
    except ConfigError as error:
        raise SettingError(str(error), error.problems) from error
    except DataError as error:
        raise InputError(str(error), error.problems) from error
    except BaseModelError as error:
        raise MissingBaseError(str(error)) from error


class PromptEstimator(BaseEstimator):
    """A prompt that is learned from rows in memory.

    Attributes:
        kind: the type of its tasks.
        also: other types, which rows may ask for, and which `load` takes.
    """

    kind: ClassVar[Kind]
    also: ClassVar[tuple[Kind, ...]] = ()
    base: Any
    method: Any
    instruction: str | None
    lr: float | None
    epochs: int | None
    seed: int
    dev: Any
    verbose: Any

    _doc_link_module = "softprompt"
    _fitted: Fitted
    _reads: Reads

    def __getstate__(self) -> dict[str, Any]:
        """Of a base that was given loaded only its name: an estimator holds none of its weights."""
        state = dict(super().__getstate__())
        if isinstance(self.base, Base):
            state["base"] = _settings_of(self.base)
        return state

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` or `load` has been called."""
        return hasattr(self, "_fitted")

    def save(self, folder: str | Path) -> Path:
        """Write the artifact, for `Runtime.add`, the command line and `load`.

        Raises:
            NotFittedError: nothing was learned yet.
            ArtifactError: the folder holds something else.
        """
        return self._known().save(folder)

    @classmethod
    def load(cls, folder: str | Path, base: Any = "auto") -> Any:
        """Load an artifact as an estimator, whether an estimator or something else trained it.

        Args:
            folder: of the artifact, or of an ensemble of them.
            base: the base that it was made on: a name, a folder or a `Base`; a list if an ensemble has several. `auto`
                finds bundled bases and those loaded in this process.

        Raises:
            ArtifactError: damaged, of another base, or of a task of another type.
            InputError: the base has to be named.
        """
        with own_errors():
            fitted = Fitted.read(folder)
            if fitted.task.spec.type not in (kinds := (cls.kind, *cls.also)):
                fits = " and ".join(map(repr, kinds))
                raise ArtifactError(
                    f"{folder}: its task is of type {fitted.task.spec.type!r}, {cls.__name__} is for {fits}"
                )
            if isinstance(base, str) and base == "auto":
                bases = [_base_of_artifact(manifest.base, f"{folder}") for manifest in fitted.manifests]
            else:
                bases = [base_of(one) for one in (base if isinstance(base, (list, tuple)) else [base])]
            held = Fitted(fitted.files, (), bases)
            # here an artifact of another base is told
            held.settings = [_settings_of(member.base) for member in held.members]
        # several were chosen by `auto`, which chooses again where the estimator is fitted again
        estimator = cls() if len(bases) > 1 else cls(base=bases[0], method=held.manifests[0].method)
        if hasattr(estimator, "instruction"):
            estimator.instruction = held.task.spec.template.instruction
        estimator._take(held, Reads.of_task(held.task))
        return estimator

    def _take(self, fitted: Fitted, reads: Reads) -> None:
        """Keep what was learned, or loaded."""
        self._fitted, self._reads = fitted, reads
        if not reads.texts:
            self.n_features_in_ = len(reads.fields)
        elif hasattr(self, "n_features_in_"):
            del self.n_features_in_
        if reads.named and not reads.texts:
            self.feature_names_in_ = np.array(list(reads.fields), object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _known(self) -> Fitted:
        """What was learned.

        Raises:
            NotFittedError: nothing.
        """
        if not hasattr(self, "_fitted"):
            name = type(self).__name__
            raise NotFittedError(f"This {name} instance is not fitted yet; call fit with texts and their answers first")
        return self._fitted

    def _settings(
        self,
        reads: Reads,
        labels: Sequence[str] = (),
        words: Mapping[str, str] | None = None,
        kind: Kind | None = None,
    ) -> dict[str, Any]:
        """The task that is proposed for these rows, as a mapping."""
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(self).__name__).lower()
        fields, told = list(reads.fields.values()), getattr(self, "instruction", None)
        return propose(kind or self.kind, fields, labels, name=name, instruction=told, label_words=words)

    def _learn(
        self,
        task: Task,
        rows: Sequence[Row],
        dev: Sequence[Row] | None,
        remembered: Mapping[str, Any] | None = None,
    ) -> tuple[Fitted, dict[str, Any]]:
        """Train on these rows.

        Args:
            dev: those that choose the best step; None: some of the rows.
            remembered: what `load` must know beside the task; written into the manifest.

        Returns:
            what was learned, and a summary of it for people.
        """
        given, method = resolve_auto(task.spec.type, self.base, self.method)
        spec, seed = self._how()
        parts = dict(zip(("train", "dev"), self._divided(task, rows, dev), strict=True))
        began = time.perf_counter()
        with watching(self.verbose) as (progress, tell), LOCK:
            base = base_of(given, progress)
            result = train(
                base,
                task,
                make_method(method) if isinstance(method, (str, dict)) else method,
                train=spec,
                cache=CACHE,
                seed=seed,
                rows=parts,
                reuse=kept_rows(base),
                check=False,
                progress=progress,
            )
            keep_rows(result.prepared)
            summary = self._summed_up(result.summary(), began, tell)
        result.settings |= remembered or {}
        return fitted_of([(1.0, result)]), summary

    def _divided(self, task: Task, rows: Sequence[Row], dev: Sequence[Row] | None) -> tuple[list[Row], list[Row]]:
        """Rows to learn from, and dev rows: those that were given, or some of the others.

        Rows of weight 0 are left out first, as they would decide steps and thresholds from among the dev rows.
        """
        counted = [row for row in rows if row.weight]
        if dev is not None:
            return counted, list(dev)
        return divide(counted, task.strata(counted), self.dev, check_seed(plain(self.seed)), task.content)

    def _how(self) -> tuple[dict[str, Any], int]:
        """Settings of training that were given, and the seed."""
        spec = {name: plain(value) for name in ("lr", "epochs") if (value := getattr(self, name)) is not None}
        return spec, check_seed(plain(self.seed))

    def _summed_up(self, summary: dict[str, str], began: float, tell: Callable[[str], object]) -> dict[str, Any]:
        """A summary with the time since `began` (by `time.perf_counter`), which is also shown in one line."""
        summary = {**summary, "in": f"{time.perf_counter() - began:.1f} s"}
        tell(f"{type(self).__name__}: {', '.join(f'{name} {value}' for name, value in summary.items())}")
        return summary

    def _given_dev(self) -> tuple[Any, Any] | None:
        """(X_dev, y_dev) where they were given; None where dev rows are to be some of the others.

        Raises:
            InputError: more or fewer than two.
        """
        if not isinstance(self.dev, (tuple, list)):
            return None
        if len(self.dev) != 2:
            raise InputError(f"dev holds {len(self.dev)} things; expected (X_dev, y_dev)")
        return self.dev[0], self.dev[1]

    def _asked(self, X: Any) -> list[Row]:
        """Rows that are asked, each with its place."""
        return [Row(values, f"X[{place}]") for place, values in enumerate(self._values(X, self._reads))]

    def _values(self, X: Any, reads: Reads, name: str = "X") -> list[dict[str, Any]]:
        """The fields of each row of X."""
        who = type(self).__name__
        return reads.rows(read_table(X, who, name), who, name)

    def _html_repr(self) -> str:
        """scikit-learn's diagram of the settings, and a table of what was learned."""
        diagram: str = super()._html_repr()
        return diagram + (summary_html(self.summary_) if hasattr(self, "summary_") else "")

    summary_: dict[str, Any]


def _base_of_artifact(named: BaseRecord, where: str) -> Base:
    """The base of an artifact by what its manifest says: one that comes with the package, or is in this process.

    Raises:
        InputError: neither; a base is not loaded because an artifact names it.
    """
    if (known := base_of_digest(named.digest)) is not None:
        return known
    if named.id in BUNDLED:
        return base_of(named.id)
    raise InputError(f"{where}: made on base {named.id!r}; name the base when you load it: load(folder, base=…)")


def _settings_of(base: Base) -> Any:
    """How a base is named and held, as `shared.base_of` takes it."""
    held: dict[str, Any] = {"name": base.name}
    if (dtype := next(name for name, known in DTYPES.items() if known == base.dtype)) != "fp32":
        held["dtype"] = dtype
    if base.kind != "causal":
        held["kind"] = base.kind
    if base.quantization is not None:
        held |= {"quantization": base.quantization, "isolated": base.isolated}
    return base.name if len(held) == 1 else held


def fitted_of(members: Sequence[tuple[float, Result]]) -> Fitted:
    """What runs have learned, in memory: one alone, or several that answer together by their weights."""
    bases = [result.prepared.base for _, result in members]
    with TemporaryDirectory() as folder:
        held = [(result.save(Path(folder) / f"{place}"), weight) for place, (weight, result) in enumerate(members)]
        target = Path(folder) / "0"
        if len(members) > 1:
            save_ensemble(target := Path(folder) / "together", held)
        return Fitted.read(target, list(map(_settings_of, bases)), bases)
