"""How options are compared, chosen on dev before anything is learned."""

from __future__ import annotations

from ..answers import evaluate
from ..base import Base
from ..control import Control
from ..data import Row
from ..engine import CacheConfig
from ..errors import ConfigError
from ..methods import make_method
from ..prepared import prepare
from ..tasks import Task


def resolve_scoring(
    base: Base,
    task: Task,
    rows: dict[str, list[Row]] | None,
    cache: CacheConfig | None = None,
    control: Control | None = None,
) -> Task:
    """The task with `scoring.by: auto` replaced by what does best on dev behind the hard prompt; any other task as it is.

    Raises:
        ConfigError: there are no dev rows to choose by.
    """
    if not task.ways:
        return task
    control = control or Control()
    rows = rows if rows is not None else task.load_data(control.progress)
    if not rows.get("dev"):
        raise ConfigError(
            "scoring.by is auto, but there are no dev rows to choose by; set data.split.dev, or name a way"
        )
    estimates = {}
    for way in task.ways:
        ready = prepare(base, task.scored_by(way), make_method("hard"), cache, rows, splits=("dev",))
        estimates[way] = evaluate(ready, ready.splits["dev"], control).estimate
    best = max(estimates, key=lambda way: estimates[way].value)
    told = ", ".join(f"{way} {one}" for way, one in estimates.items())
    control.notice(f"scoring.by: {best} (dev {estimates[best].metric} before training: {told})")
    return task.scored_by(best)
