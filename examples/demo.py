"""The demo: real texts, a real model. What does each way of prompting give, what does it cost, how are prompts swapped?

Run it with `make demo`, or `python examples/demo.py --quick` for a quarter of the rows. It ends in a picture, `demo.png`.
What an earlier call has measured is kept in the folder of `--out`; `--fresh` starts over.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from demo_mixed import Mixed, Text, answer_mixed
from demo_picture import Picture, Story
from demo_results import HEADER, Measured, Store, differences
from rich.table import Table

import softprompt as sp
from softprompt.cli.console import out, progress
from softprompt.cli.ending import ended
from softprompt.cli.streams import make_streams_safe
from softprompt.data import Row
from softprompt.storage import digest_of, write_text
from softprompt.training import Prepared

ORIGINS = {"movie-reviews": "movie", "tweets": "tweet", "product-reviews": "product", "news-sentences": "newspaper"}
ORIGIN_TASK = {
    "version": 1,
    "name": "origin",
    "type": "classification",
    "template": {
        "instruction": "Read the text. Say where it comes from: a movie review, a tweet, a product review or a newspaper.\n\n",
        "input": "Text: {{ text }}",
        "cue": "\nIt comes from a",
        "answer": " {{ answer }}",
    },
    "verbalizer": {word: word for word in ORIGINS.values()},
    "metric": "accuracy",
}
Splits = dict[str, list[Row]]


@dataclass(frozen=True)
class Way:
    """A way of prompting.

    Attributes:
        train: what differs from the method's own defaults.
        saved: leave the artifact in the folder; a whole model is too large for that.
    """

    title: str
    method: str
    train: dict[str, Any] = field(default_factory=dict)
    saved: bool = True


# All else is a method's default. Dev is evaluated every 8 steps: once an epoch where a step has 16 rows, since it takes time.
LOOKS = {"eval_every": 8}
# An infix makes 32 steps, which is enough here; by default it makes 96 of so few rows. Chosen on reviews that are no test rows.
SHORT = {**LOOKS, "min_steps": 32}
# What runs whole rows in each step makes 24 steps of 16 rows; by default it makes 96 or more of so few, which takes minutes.
EPOCHS = {**LOOKS, "epochs": 3}
INFIX, FULL = "infix prompt", "full fine-tuning"
WAYS = (
    Way("zero-shot", "hard"),
    Way("probe", "probe"),
    Way(INFIX, "infix", SHORT),
    Way("soft prompt", "soft", EPOCHS),
    Way(FULL, "full", EPOCHS, saved=False),
)
ORIGIN_WAYS = (Way("zero-shot", "hard"), Way(INFIX, "infix", SHORT))


@dataclass(frozen=True)
class Sizes:
    """Rows of each split: of the reviews, and of the second task from each of its four sources; texts of the mixed batch."""

    reviews: Mapping[str, int]
    origin: Mapping[str, int]
    mixed: int


WHOLE = Sizes({"train": 128, "dev": 32, "test": 250}, {"train": 40, "dev": 8, "test": 25}, 16)
QUICK = Sizes({"train": 32, "dev": 8, "test": 62}, {"train": 10, "dev": 2, "test": 6}, 8)


def load_rows() -> dict[str, Splits]:
    """The four ready data sets, cut as everywhere."""
    with progress() as show:
        return {name: sp.Task.load(name).load_data(show) for name in ORIGINS}


def reviews_task(rows: Splits, sizes: Sizes) -> tuple[sp.Task, Splits]:
    """The ready task with fewer rows. Test rows are the first of its own, which nothing was chosen on."""
    spec = sp.Task.load("movie-reviews").spec.model_dump(mode="json", exclude_none=True)
    spec["data"]["split"] |= {"train": sizes.reviews["train"], "dev": sizes.reviews["dev"]}
    return sp.Task.load(spec), {name: rows[name][:count] for name, count in sizes.reviews.items()}


def origin_task(rows: dict[str, Splits], sizes: Sizes, folder: Path) -> tuple[sp.Task, Splits]:
    """A task of our own, from files: which of the four sources is a text from?"""
    files = {}
    for split, count in sizes.origin.items():
        texts = [
            {"text": row.values["text"], "label": ORIGINS[name]}
            for several in zip(*(rows[name][split][:count] for name in ORIGINS), strict=True)
            for name, row in zip(ORIGINS, several, strict=True)
        ]
        file = folder / f"{split}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts))
        files[split] = str(file.resolve())
    task = sp.Task.load({**ORIGIN_TASK, "data": files})
    return task, task.load_data()


def mixed_texts(rows: dict[str, Splits], count: int) -> list[Text]:
    """The first test rows of the four sources in turn, with the right answers to both questions."""
    several = zip(*(rows[name]["test"] for name in ORIGINS), strict=False)
    texts = [
        Text(row.values["text"], {"sentiment": row.values["label"], "origin": ORIGINS[name]})
        for some in several
        for name, row in zip(ORIGINS, some, strict=True)
    ]
    return texts[:count]


def measure(
    base: sp.Base, task: sp.Task, rows: Splits, way: Way, folder: Path | None, reuse: Sequence[Prepared]
) -> tuple[Measured, Prepared]:
    """Train and test one way."""
    with progress() as show:
        result = sp.train(
            base,
            task,
            way.method,
            folder,
            train=way.train,
            test=True,
            fresh=True,
            rows={"test": rows["test"]} if way.method == "hard" else rows,
            reuse=reuse,
            progress=lambda what, done, total: show(f"{way.title}: {what}", done, total),
        )
    artifact = None if result.artifact is None else sp.load(result.artifact)
    tensors = result.prepared.method.export().values()
    tested = result.metrics["test"]
    measured = Measured(
        way=way.title,
        estimate=tested.estimate,
        hits=[int(row.predicted == row.gold) for row in tested.outcomes],
        seconds=None if way.method == "hard" else result.seconds["encode"] + result.seconds["train"],
        parameters=result.parameters,
        size=artifact.size if artifact else sum(value.numel() * value.element_size() for value in tensors),
        artifact=artifact.digest if artifact else "",
    )
    return measured, result.prepared


def compare(base: sp.Base, task: sp.Task, rows: Splits, ways: Sequence[Way], to: Path, store: Store) -> list[Measured]:
    """Train and test each way on the same rows; print a line as soon as one is done."""
    out.print(HEADER)
    reuse: list[Prepared] = []
    results, any_kept = [], False
    for way in ways:
        folder = to / way.method if way.saved else None
        settings = digest_of(
            {
                "version": sp.__version__,
                "base": [base.digest, base.device.type],
                "task": task.spec.model_dump(mode="json"),
                "rows": {split: [row.values for row in some] for split, some in rows.items()},
                "way": asdict(way),
            }
        )
        name = f"{task.name}/{way.method}"
        measured = store.get(name, settings, folder)
        kept = measured is not None
        if measured is None:
            measured, prepared = measure(base, task, rows, way, folder, reuse)
            store.put(name, settings, measured)
            if way.method == "hard":
                reuse.append(prepared)  # its test texts have run; the probe reads the same states
        results.append(measured)
        any_kept |= kept
        out.print(measured.line() + ("  (kept)" if kept else ""))
    if any_kept:
        out.print("(kept): measured by an earlier call; --fresh measures it again")
    return results


def show_mixed(mixed: Mixed) -> None:
    """Print what came of the mixed batch."""
    out.print(f"both loaded in {1000 * mixed.loading:.0f} ms")
    table = Table("the first test text of each source", "is it good?", "where is it from?")
    for text, answers in mixed.shown:
        table.add_row(text, str(answers["sentiment"]), str(answers["origin"]))
    out.print(table)
    out.print(mixed.summary())


def run(picture: Picture, base: sp.Base, rows: dict[str, Splits], to: Path, sizes: Sizes, fresh: bool) -> Path:
    """All of it; the picture's path."""
    store = Store(to / "results.json", fresh)
    task, some = reviews_task(rows["movie-reviews"], sizes)
    train, dev, test = (len(some[split]) for split in ("train", "dev", "test"))
    title = f"movie reviews, good or bad: {train} labelled, {dev} more to choose by, {test} test rows, one seed"
    out.print(f"\n1. {title}")
    reviews = compare(base, task, some, WAYS, to / "reviews", store)
    compared = differences(reviews, FULL)
    out.print("\n".join(compared))
    out.print(
        "(Intervals say what other test rows would give, not other seeds. Training includes encoding, not testing.)"
    )

    task, some = origin_task(rows, sizes, to / "texts")
    out.print(
        f"\n2. another task on the same model: which of four sources is a text from? {len(some['train'])} labelled"
    )
    origin = compare(base, task, some, ORIGIN_WAYS, to / "origin", store)

    out.print("\n3. both prompts on one model, in one batch")
    prompts = {"sentiment": to / "reviews" / "infix", "origin": to / "origin" / "infix"}
    mixed = answer_mixed(base, prompts, mixed_texts(rows, sizes.mixed))
    show_mixed(mixed)
    path = to / "demo.png"
    picture.draw(path, Story(title, INFIX, reviews, compared, origin, mixed))
    return path


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("demo-output"), help="folder for results, artifacts and picture"
    )
    parser.add_argument("--quick", action="store_true", help="a quarter of the rows")
    parser.add_argument("--fresh", action="store_true", help="measure again what an earlier call has measured")
    args = parser.parse_args()
    picture, began = Picture(), time.perf_counter()
    out.print("about three minutes on two cores, or seconds where an earlier call has measured; loading the base …")
    with progress() as show:
        base = sp.Base.load("smollm2", progress=show)
    path = run(picture, base, load_rows(), args.out, QUICK if args.quick else WHOLE, args.fresh)
    out.print(f"\ndone in {(time.perf_counter() - began) / 60:.1f} minutes; called again, it keeps what is measured")
    out.print(f"try .venv/bin/softprompt inspect {args.out}/reviews/infix, and look at the picture:")
    out.print(str(path.resolve()))


if __name__ == "__main__":
    make_streams_safe()
    with ended():
        main()
