"""From rows to a prepared run: demonstrations drawn, task and method bound to the base, the plan made, rows tokenized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..base import Base
from ..data import Row, refuse
from ..engine import NOTHING, Engine, make_engine, plan
from ..methods import Method
from ..methods.binding import bind, refuse_unfit
from ..methods.headed import with_head
from ..parallel import Processes
from ..storage import digest_of
from ..tasks import BoundTask, Task
from ..types import Example
from ..values import plain_row
from .spec import CacheSpec


@dataclass
class Prepared:
    """Everything that a run needs, bound together; several runs may share one (and its encoded rows).

    Attributes:
        splits: examples by split, `train` without its demonstrations.
        digest: of all rows and how they are split.
    """

    base: Base
    task: Task
    method: Method
    bound: BoundTask
    engine: Engine
    splits: dict[str, list[Example]]
    digest: str


def prepare(
    base: Base,
    task: Task,
    method: Method,
    cache: CacheSpec | None = None,
    rows: dict[str, list[Row]] | None = None,
    reuse: Sequence[Prepared] = (),
    splits: Sequence[str] = ("train", "dev", "test"),
    parallel: Processes | None = None,
    seed: int | None = None,
) -> Prepared:
    """Draw demonstrations, bind task and method to the base, turn rows into examples.

    Args:
        rows: splits that were loaded already (default: the task's own data).
        reuse: earlier runs. Of the first fitting ones what was encoded is used again, where base and what rows are encoded
            behind are the same; and all that was made ready, where the plan and the rows are the same, too.
        splits: which of them become examples.
        parallel: the processes that share the run, each of which keeps its own encoded rows.
        seed: initialise what the method learns; None for a method that holds it already.

    Raises:
        ConfigError, DataError: see `Task.load_data`, `Method.segments`.
    """
    if rows is None:
        rows = task.load_data()
    # they may be a caller's own
    rows = {name: [Row(plain_row(row.values), row.where) for row in part] for name, part in rows.items()}
    refuse([(row.where, task.check_any(row.values)) for part in rows.values() for row in part])
    task, train_rows = task.draw_demonstrations(rows.get("train", []))
    method = with_head(method, base, task)
    refuse_unfit(base, task, method)
    bound = bind(task, base, method)
    if seed is not None:
        method.attach(base, bound, seed)
    bound.reserve(method.positions)
    # where layers do not run one by one, all of them run: the same, only slower
    first = method.first_layer if base.gated or base.kind != "causal" else 0
    how = plan(method.segments(bound.slots, len(bound.cue)), first, base.bidirectional)
    digest = digest_of({name: [row.values for row in part] for name, part in rows.items()})
    kept = (cache or CacheSpec()).config((parallel or Processes()).name)
    start = method.learned() if how.first_layer else NOTHING
    engine = make_engine(base, how, bound.head, bound.cue, kept, [other.engine for other in reuse], start, bound.tail)
    near = next((other for other in reuse if engine.same(other.engine)), None)
    if near is not None:
        engine = near.engine
        there = all(name in near.splits for name in splits if name in rows)
        if there and (near.digest, near.task.spec, near.bound.room) == (digest, task.spec, bound.room):
            bound.cut, bound.tied = near.bound.cut, near.bound.tied
            return Prepared(base, task, method, bound, engine, near.splits, digest)
    parts = {name: train_rows if name == "train" else rows[name] for name in splits if name in rows}
    return Prepared(
        base, task, method, bound, engine, {name: bound.examples(part) for name, part in parts.items()}, digest
    )
