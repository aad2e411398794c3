"""What all estimators of a process share: bases that are loaded, and rows that are encoded.

So clones, folds and trials load a base once, and run what is frozen of a text once.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Any

from ..base import Base
from ..base.memory import give_back_freed_memory
from ..errors import BaseModelError, DataError, InputError
from ..methods import make_method
from ..prepared import Prepared
from ..runfile import CacheSpec, base_section
from ..storage import digest_of
from ..types import Progress, ignore_progress

LOCK = threading.RLock()
"""Held while an estimator trains or answers: the rows that are kept are changed by one thread at a time."""
CACHE = CacheSpec(ram_gb=2.0)
_BASES = 3  # that are kept loaded, the last ones asked for
_CONTEXTS = 2  # of each, what rows are encoded behind
_MOST_STATES = 100_000  # last states of texts that an engine may hold before it is made anew

_loaded: OrderedDict[str, Base] = OrderedDict()
_known: weakref.WeakValueDictionary[str, Base] = weakref.WeakValueDictionary()
_prepared: OrderedDict[tuple[int, str], Prepared] = OrderedDict()


class MissingBaseError(BaseModelError, InputError):
    """A base that cannot be loaded, as an estimator tells it."""


def base_of(given: Any, progress: Progress = ignore_progress) -> Base:
    """The base of a name, a folder, a run file's `base` section or a `Base`; loaded once in a process.

    Raises:
        MissingBaseError: it cannot be loaded.
        ConfigError: settings of a base that there are not.
    """
    if isinstance(given, Base):
        _known[given.digest] = given
        return given
    spec = base_section(given)
    name = Path(spec.name)
    key = digest_of({**spec.model_dump(mode="json"), "folder": str(name.resolve()) if name.is_dir() else ""})
    with LOCK:
        if key not in _loaded:
            try:
                _loaded[key] = spec.load(progress)
            except (BaseModelError, DataError) as error:  # or it could not be fetched
                raise MissingBaseError(str(error)) from error
            while len(_loaded) > _BASES:
                _forget(_loaded.popitem(last=False)[1])
        _loaded.move_to_end(key)
        _known[_loaded[key].digest] = _loaded[key]
        return _loaded[key]


def base_of_digest(digest: str) -> Base | None:
    """A base of this process that has these weights, if one is still there."""
    return _known.get(digest)


def kept_rows(base: Base) -> list[Prepared]:
    """What was prepared on this base, the newest first; see `prepare(reuse=…)`."""
    with LOCK:
        return [ready for (model, _), ready in reversed(_prepared.items()) if model == id(base.model)]


def keep_rows(ready: Prepared) -> None:
    """Keep what a run has encoded for the next, without its rows and what it has learned."""
    key = (id(ready.base.model), f"{ready.engine.context} {digest_of(repr(ready.engine.plan))}")
    with LOCK:
        if ready.engine.kept_states > _MOST_STATES:
            _prepared.pop(key, None)
            return
        _prepared[key] = dataclasses.replace(ready, method=make_method("hard"), splits={})
        _prepared.move_to_end(key)
        mine = [other for other in _prepared if other[0] == key[0]]
        for other in mine[:-_CONTEXTS]:
            del _prepared[other]
        while len(_prepared) > _BASES * _CONTEXTS:
            _prepared.popitem(last=False)


class SharedRows:
    """What `auto` reuses: the rows that all estimators of the process share."""

    def of(self, base: Base) -> list[Prepared]:
        """The newest first."""
        return kept_rows(base)

    def keep(self, ready: Prepared) -> None:
        """For this choice and for later estimators."""
        keep_rows(ready)


def release() -> None:
    """Give back the bases that are loaded and the rows that are encoded; estimators load them again when they need them."""
    with LOCK:
        _loaded.clear()
        _prepared.clear()
    give_back_freed_memory()


def _forget(base: Base) -> None:
    for key in [key for key in _prepared if key[0] == id(base.model)]:
        del _prepared[key]
