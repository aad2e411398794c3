"""How options are compared, chosen on dev before anything is learned."""

from __future__ import annotations

from ..base import Base
from ..data import Row
from ..errors import ConfigError
from ..evaluate import evaluate
from ..methods import make_method
from ..parallel import Processes
from ..tasks import Task
from ..tasks.choice import Choice
from ..types import Notice, Progress, ignore_notice, ignore_progress
from .preparing import prepare
from .spec import CacheSpec


def settle(
    base: Base,
    task: Task,
    rows: dict[str, list[Row]] | None,
    cache: CacheSpec | None,
    progress: Progress = ignore_progress,
    notice: Notice = ignore_notice,
    parallel: Processes | None = None,
) -> Task:
    """The task with `scoring.by: auto` replaced by what does best on dev behind the hard prompt; any other task as it is.

    Raises:
        ConfigError: there are no dev rows to choose by.
    """
    if not isinstance(task, Choice) or not task.ways:
        return task
    rows = rows if rows is not None else task.load_data(progress)
    if not rows.get("dev"):
        raise ConfigError(
            "scoring.by is auto, but there are no dev rows to choose by; set data.split.dev, or name a way"
        )
    found = {}
    for way in task.ways:
        ready = prepare(base, task.scored_by(way), make_method("hard"), cache, rows, splits=("dev",))
        found[way] = evaluate(ready.engine, ready.method, ready.bound, ready.splits["dev"], progress, parallel).estimate
    best = max(found, key=lambda way: found[way].value)
    told = ", ".join(f"{way} {one}" for way, one in found.items())
    notice(f"scoring.by: {best} (dev {found[best].metric} before training: {told})")
    return task.scored_by(best)
