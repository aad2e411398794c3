"""Records as Markdown: accuracy by task and contender, means over tasks, and the runs that disappoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import mean, median

import numpy as np
from scipy import stats

from softprompt.benchmarks.defaults.contenders import CONTENDERS, PROBE
from softprompt.benchmarks.defaults.records import Record
from softprompt.benchmarks.figures.formats import table

BELOW_PROBE, BELOW_BEST, ABOVE_MAJORITY = 0.05, 0.10, 0.05
_NEAR = 1e-9  # differences of accuracies are not exact
NONE = "–"


@dataclass
class Cells:
    """Records that are done, in tables.

    Attributes:
        tasks, contenders: by name, in the order of the report.
        by_name: by task and contender, the records by seed.
        best: by task, the learned contender with the highest mean accuracy and that mean; empty where none was trained.
    """

    tasks: list[str]
    contenders: list[str]
    by_name: dict[tuple[str, str], dict[int, Record]]
    best: dict[str, tuple[str, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Cells:
        """Gather the records that are done."""
        done = [record for record in records if record.status == "done"]
        by_name: dict[tuple[str, str], dict[int, Record]] = {}
        for record in done:
            by_name.setdefault((record.task, record.contender), {})[record.seed] = record
        order = {name: index for index, name in enumerate(CONTENDERS)}
        names = sorted({record.contender for record in done}, key=lambda name: (order.get(name, len(order)), name))
        cells = cls(sorted({record.task for record in done}), names, by_name)
        for task in cells.tasks:
            own = {name: cells.runs(task, name) for name in names}
            means = {
                name: mean(record.accuracy for record in runs)
                for name, runs in own.items()
                if runs and all(record.info.get("learned") for record in runs)
            }
            if means:
                cells.best[task] = max(means.items(), key=lambda pair: pair[1])
        return cells

    def runs(self, task: str, contender: str) -> list[Record]:
        """The records of a cell by seed."""
        return [record for _, record in sorted(self.by_name.get((task, contender), {}).items())]

    def runs_of(self, contender: str) -> list[Record]:
        """The records of a contender on all tasks."""
        return [record for task in self.tasks for record in self.runs(task, contender)]

    def below_probe(self, record: Record) -> float | None:
        """Accuracy minus that of the probe on the same task and rows; None where the probe did not run on them."""
        probe = self.by_name.get((record.task, PROBE), {}).get(record.seed)
        return None if probe is None else record.accuracy - probe.accuracy

    def below_best(self, record: Record) -> float | None:
        """Accuracy minus the mean of the best learned contender on that task; None where none was trained."""
        return record.accuracy - self.best[record.task][1] if record.task in self.best else None


def as_markdown(records: Sequence[Record]) -> str:
    """The whole report."""
    cells = Cells.of(records)
    pieces = ["## Accuracy, in %", _accuracy(cells), "## Means over tasks", _means(cells)]
    pieces += ["## Runs that disappoint", _worst(cells), _notes(cells, records)]
    return "\n\n".join(pieces)


def interval_of(values: Sequence[float]) -> tuple[float, float | None]:
    """(mean, half of its 95 % interval by Student's t; None of a single value)."""
    if len(values) < 2:
        return mean(values), None
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return mean(values), float(stats.t.ppf(0.975, len(values) - 1)) * error


def _accuracy(cells: Cells) -> str:
    lines = []
    for name in cells.contenders:
        accuracies = [_cell([record.accuracy for record in cells.runs(task, name)]) for task in cells.tasks]
        lines.append([name, *accuracies])
    majority = [f"{mean(_majority(cells, task)) * 100:.1f}" for task in cells.tasks]
    if "majority" not in cells.contenders:
        lines.insert(0, ["(commonest label)", *majority])
    return table(["contender", *cells.tasks], lines)


def _majority(cells: Cells, task: str) -> list[float]:
    by_seed = {r.seed: r.majority for name in cells.contenders for r in cells.runs(task, name)}
    return list(by_seed.values())


def _means(cells: Cells) -> str:
    head = ["contender", "tasks", "accuracy", "macro F1", "log loss", "seconds to fit", "seconds to predict", "spikes"]
    lines = []
    for name in cells.contenders:
        own = {task: runs for task in cells.tasks if (runs := cells.runs(task, name))}
        every = [record for runs in own.values() for record in runs]
        spikes = [count for record in every if (count := record.info.get("spikes")) is not None]
        lines.append(
            [
                name,
                f"{len(own)} of {len(cells.tasks)}",
                _cell(_by_seed(list(own.values()))),
                f"{mean(mean(record.macro_f1 for record in runs) for runs in own.values()) * 100:.1f}",
                f"{mean(mean(record.log_loss for record in runs) for runs in own.values()):.3f}",
                f"{median(record.fit_seconds for record in every):.1f}",
                f"{median(record.predict_seconds for record in every):.1f}",
                str(sum(spikes)) if spikes else NONE,
            ]
        )
    return table(head, lines)


def _by_seed(tasks: Sequence[Sequence[Record]]) -> list[float]:
    """The mean over tasks of each seed; one mean of all where tasks have different seeds."""
    seeds = {tuple(record.seed for record in runs) for runs in tasks}
    if len(seeds) == 1:
        return [mean(record.accuracy for record in each) for each in zip(*tasks, strict=True)]
    return [mean(mean(record.accuracy for record in runs) for runs in tasks)]


def _worst(cells: Cells) -> str:
    head = ["contender", "runs", "worst against probe", "worst against the best learned mean"]
    head += [f"≥ {BELOW_PROBE * 100:.0f} below probe", f"≥ {BELOW_BEST * 100:.0f} below the best"]
    head += [f"majority + {ABOVE_MAJORITY * 100:.0f} or less", "any of these"]
    lines = []
    for name in cells.contenders:
        runs = cells.runs_of(name)
        probe = {id(record): gap for record in runs if (gap := cells.below_probe(record)) is not None}
        best = {id(record): gap for record in runs if (gap := cells.below_best(record)) is not None}
        far = {key for key, gap in probe.items() if gap <= -BELOW_PROBE + _NEAR}
        low = {key for key, gap in best.items() if gap <= -BELOW_BEST + _NEAR}
        idle = {id(record) for record in runs if record.accuracy <= record.majority + ABOVE_MAJORITY + _NEAR}
        counts = [str(len(far)) if probe else NONE, str(len(low)) if best else NONE, str(len(idle))]
        lines.append(
            [name, str(len(runs)), _lowest(runs, probe), _lowest(runs, best), *counts, str(len(far | low | idle))]
        )
    return table(head, lines)


def _lowest(runs: Sequence[Record], gaps: dict[int, float]) -> str:
    """The lowest difference in points, with its task and seed."""
    known = [record for record in runs if id(record) in gaps]
    if not known:
        return NONE
    worst = min(known, key=lambda record: gaps[id(record)])
    return f"{gaps[id(worst)] * 100:+.1f} ({worst.task}-{worst.seed})".replace(
        "-", "−", 1 if gaps[id(worst)] < 0 else 0
    )


def _notes(cells: Cells, records: Sequence[Record]) -> str:
    best = ", ".join(f"{task} {name} {value * 100:.1f}" for task, (name, value) in cells.best.items())
    lines = [
        "± is half of a 95 % interval over seeds (Student's t): other labelled rows and starts, the same test rows."
    ]
    lines += [f"Best learned contender by task: {best}."] if best else []
    commits = sorted({f"{(record.commit or 'none')[:10]}{'+' if record.dirty else ''}" for record in records})
    lines.append(f"Commits (+: with changes): {', '.join(commits)}.")
    lines += [f"Failed: {r.task} {r.contender}-{r.seed}: {r.reason}" for r in records if r.status == "failed"]
    return "\n".join(f"- {line}" for line in lines)


def _cell(values: Sequence[float]) -> str:
    """Mean and half-width in points."""
    if not values:
        return NONE
    value, half = interval_of(values)
    return f"{value * 100:.1f}" + (f" ± {half * 100:.1f}" if half is not None else "")
