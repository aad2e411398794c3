"""Figures of the defaults on ten tasks: `defaults/CONTENDER/WHAT`, from `results/defaults`.

Contenders are compared with the same labelled rows: seeds 0 to 2 count where all tasks have them, else what seeds all have.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from softprompt.benchmarks.defaults import records
from softprompt.benchmarks.defaults.report import Cells, interval_of
from softprompt.benchmarks.figures import formats

SEEDS = (0, 1, 2)
LEAST = 3  # seeds, for an interval over them to mean something
TITLES = {
    "majority": "commonest label",
    "tfidf": "TF-IDF, logistic regression",
    "minilm_lr": "MiniLM's mean, logistic regression",
    "setfit-60": "SetFit on MiniLM, 60 steps",
    "setfit": "SetFit on MiniLM, its own default",
    "probe": "`probe` on SmolLM2",
    "lora-cue": "activated LoRA on SmolLM2",
    "full": "full fine-tuning of SmolLM2",
    "auto": "`auto`, our default",
}


def values(root: Path) -> Iterator[tuple[str, str]]:
    """(key, text) of each contender that ran on all tasks, of single runs (`defaults/TASK/CONTENDER-SEED`), of the table."""
    folder = root / "benchmarks/results/defaults"
    if not folder.is_dir():
        return
    cells = Cells.of(records.read_all(folder))
    shown = {name: seeds for name in cells.contenders if (seeds := seeds_of(cells, name))}
    means = {name: [_mean(cells, name, seed) for seed in seeds] for name, seeds in shown.items()}
    for name, by_seed in means.items():
        key = f"defaults/{name}"
        yield f"{key}/accuracy", f"{formats.percent(mean(by_seed))}"
        yield f"{key}/seeds", str(len(by_seed))
        if len(by_seed) >= LEAST:
            yield f"{key}/half-width", formats.signless((interval_of(by_seed)[1] or 0.0) * 100)
        runs = [cells.by_name[task, name][seed] for task in cells.tasks for seed in shown[name]]
        yield f"{key}/processor-time", formats.seconds(mean(run.cpu_seconds for run in runs))
        yield from _against(cells, name, shown)
        for task in cells.tasks:
            yield f"{key}@{task}/accuracy", formats.percent(mean(_of(cells, task, name, seed) for seed in shown[name]))
    for record in (record for runs in cells.by_name.values() for record in runs.values()):
        key = f"defaults/{record.task}/{record.contender}-{record.seed}"
        yield f"{key}/accuracy", formats.percent(record.accuracy)
        yield f"{key}/processor-time", formats.seconds(record.cpu_seconds)
    yield "defaults/table", _table(cells, shown, means)
    yield (
        "defaults/commits",
        ", ".join(sorted({f"`{r.commit[:7]}`" for n in shown for r in cells.runs_of(n) if r.commit})),
    )


def seeds_of(cells: Cells, name: str) -> tuple[int, ...]:
    """The seeds that all tasks have of a contender; of more than three, 0 to 2."""
    common = set.intersection(*(set(cells.by_name.get((task, name), {})) for task in cells.tasks))
    return SEEDS if common.issuperset(SEEDS) else tuple(sorted(common))


def _of(cells: Cells, task: str, name: str, seed: int) -> float:
    return cells.by_name[task, name][seed].accuracy


def _mean(cells: Cells, name: str, seed: int) -> float:
    """Over tasks."""
    return mean(_of(cells, task, name, seed) for task in cells.tasks)


def _against(cells: Cells, name: str, shown: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, str]]:
    """Mean and worst difference, over the seeds that both have, to each other contender."""
    for other, seeds in shown.items():
        both = [seed for seed in shown[name] if seed in seeds]
        if other == name or not both:
            continue
        gaps = {
            task: mean(_of(cells, task, name, seed) - _of(cells, task, other, seed) for seed in both)
            for task in cells.tasks
        }
        yield f"defaults/{name}/over-{other}", formats.signless(mean(gaps.values()) * 100)
        for task, gap in gaps.items():
            yield f"defaults/{name}@{task}/over-{other}", formats.signless(gap * 100)
        yield f"defaults/{name}/against-{other}", formats.points(mean(gaps.values()))
        yield f"defaults/{name}/worst-against-{other}", formats.points(min(gaps.values()))


def _table(cells: Cells, shown: dict[str, tuple[int, ...]], means: dict[str, list[float]]) -> str:
    """Contenders by tasks, the best of each column in bold."""
    columns = {name: [mean(means[name]), *_by_task(cells, name, shown[name])] for name in shown}
    best = [max(column) for column in zip(*columns.values(), strict=True)]
    lines = []
    for name, row in columns.items():
        cell = [f"{value * 100:.1f}" for value in row]
        if len(means[name]) >= LEAST and (half := interval_of(means[name])[1]):
            cell[0] += f" ± {half * 100:.1f}"
        cell = [f"**{text}**" if value == top else text for text, value, top in zip(cell, row, best, strict=True)]
        lines.append([TITLES.get(name, f"`{name}` on SmolLM2"), str(len(shown[name])), *cell])
    names = [task.replace("_", " ") for task in cells.tasks]
    return formats.table(["accuracy, in %", "seeds", "mean", *names], lines)


def _by_task(cells: Cells, name: str, seeds: tuple[int, ...]) -> list[float]:
    return [mean(_of(cells, task, name, seed) for seed in seeds) for task in cells.tasks]
