"""The demo: real reviews, a real model, what each way of prompting gives, then two prompts on one model in one batch.

Run it with `make demo`, or `python examples/demo.py --quick` for fewer rows.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.table import Table

import softprompt as sp
from softprompt.cli.console import out, progress
from softprompt.cli.ending import ended

TEST_ROWS = 400
WAYS = (
    # name, method, task settings, training rows, train settings
    ("zero-shot", "hard", {}, 512, {}),
    ("8-shot", "hard", {"demonstrations": {"k": 8}}, 512, {}),
    ("probe", "probe", {}, 512, {}),
    ("soft", {"name": "soft", "length": 20}, {}, 512, {"epochs": 2}),
    ("infix", "infix", {}, 512, {}),
)


def task_of(name: str, rows: int, test: int, changes: dict) -> sp.Task:
    """A ready task with other split sizes."""
    spec = sp.Task.load(name).spec.model_dump(mode="json", exclude_none=True)
    spec["data"]["split"] = {"train": rows, "dev": 128, "test": test, "seed": 0}
    return sp.Task.load({**spec, **changes})


def compare(base: sp.Base, to: Path, scale: int) -> None:
    """Train and test each way; print one table."""
    table = Table(
        "way", "test accuracy", "95 % interval", "seconds", "trained parameters", "artifact", title="movie reviews"
    )
    rows = None
    for name, method, changes, count, settings in WAYS:
        task = task_of("movie-reviews", count // scale, TEST_ROWS // scale, changes)
        began = time.perf_counter()
        with progress() as show:
            rows = rows or task.load_data(show)
            result = sp.train(
                base,
                task,
                method,
                to / name,
                train=settings,
                test=True,
                fresh=True,
                rows=rows,
                progress=lambda what, done, total, name=name: show(f"{name}: {what}", done, total),
            )
        seconds = time.perf_counter() - began
        found = result.metrics["test"].estimate
        low, high = found.interval
        size = sp.load(result.artifact).size / 1000
        table.add_row(
            name,
            f"{found.value:.3f}",
            f"{low:.3f} – {high:.3f}",
            f"{seconds:.0f}",
            f"{result.parameters:,}",
            f"{size:.0f} kB",
        )
        out.print(f"{name}: {found} in {seconds:.0f} s")
    out.print(table)
    out.print(
        f"{TEST_ROWS // scale} test rows, {512 // scale} training rows, seed 0; seconds include encoding and testing."
    )


def swap(base: sp.Base, to: Path, scale: int) -> None:
    """A second artifact, for tweets; both answer one batch."""
    with progress() as show:
        task = task_of("tweets", 384 // scale, 0, {})
        sp.train(
            base,
            task,
            "infix",
            to / "tweets",
            fresh=True,
            progress=lambda what, done, total: show(f"tweets: {what}", done, total),
        )
    runtime = sp.Runtime(base)
    began = time.perf_counter()
    runtime.add("movies", to / "infix")
    runtime.add("tweets", to / "tweets")
    out.print(
        f"\nloaded both artifacts in {(time.perf_counter() - began) * 1000:.0f} ms; one batch, each row its own prompt:"
    )
    rows = [
        {"text": "a tender , funny and beautifully acted film .", "artifact": "movies"},
        {"text": "ugh my flight got cancelled AGAIN :(", "artifact": "tweets"},
        {"text": "the plot makes no sense and the jokes fall flat .", "artifact": "movies"},
        {"text": "Sunshine, coffee and no work today! yay :)", "artifact": "tweets"},
    ]
    table = Table("artifact", "text", "answer", "probability")
    for row, found in zip(rows, runtime.predict(rows), strict=True):
        table.add_row(found.artifact, row["text"], found.label, f"{found.probabilities[found.label]:.2f}")
    out.print(table)


def main() -> None:
    """Parse the two options and run both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for the artifacts")
    parser.add_argument("--quick", action="store_true", help="a quarter of the rows")
    args = parser.parse_args()
    scale = 4 if args.quick else 1
    began = time.perf_counter()
    out.print("loading the base (fetched and converted once, then from the cache) …")
    with progress() as show:
        base = sp.Base.load("smollm2", progress=show)
    compare(base, args.out, scale)
    swap(base, args.out, scale)
    out.print(f"\ndone in {(time.perf_counter() - began) / 60:.1f} minutes; artifacts are in {args.out}/")
    out.print(f"try: .venv/bin/softprompt inspect {args.out}/soft")


if __name__ == "__main__":
    with ended():
        main()
