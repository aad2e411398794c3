"""The demo's picture: accuracy, seconds and bytes of each way, the second task, and what the mixed batch answered."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo_mixed import Mixed
from demo_results import Measured, duration, size

from softprompt.errors import MissingExtraError

INK, GREY, BLUE = "#1a1a1a", "#7d7d7d", "#0b62a4"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.parse_math": False,  # a dollar in a text begins no formula
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "white",
}
BYTES = {1e3: "1 kB", 1e5: "100 kB", 1e7: "10 MB", 1e9: "1 GB"}
WIDEST = 84  # characters of a text that is shown


@dataclass(frozen=True)
class Story:
    """All that the picture shows.

    Attributes:
        title: of the first task.
        ours: title of the way that is in colour.
        compared: sentences on differences between ways of the first task.
    """

    title: str
    ours: str
    reviews: Sequence[Measured]
    compared: Sequence[str]
    origin: Sequence[Measured]
    mixed: Mixed


class Picture:
    """Draws with matplotlib.

    Raises:
        MissingExtraError: it, or statsmodels, which compares ways, is not installed.
    """

    def __init__(self) -> None:
        try:
            import matplotlib
            import statsmodels  # noqa: F401 - asked for at the end, when all is trained
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtraError(
                "the demo needs matplotlib and statsmodels: pip install 'softprompt[bench]'"
            ) from error
        self._figure, self._context = Figure, matplotlib.rc_context

    def draw(self, path: Path, story: Story) -> None:
        """Write the picture."""
        with self._context(STYLE):
            figure = self._figure(figsize=(12, 8.6), dpi=110)
            figure.text(0.02, 0.955, "A small prompt on a frozen model, beside training the whole model", fontsize=15)
            figure.text(0.02, 0.925, f"SmolLM2-135M-Instruct; {story.title}")
            _first_task(figure, story)
            _second_task(figure, story)
            _batch(figure, story.mixed)
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)


def _first_task(figure: Any, story: Story) -> None:
    """Accuracy, seconds and bytes side by side, each way in one line."""
    results, width = story.reviews, (1.35, 1, 1)
    grid = figure.add_gridspec(1, 3, width_ratios=width, top=0.87, bottom=0.625, left=0.13, right=0.97, wspace=0.16)
    accuracy, training, kept = (figure.add_subplot(grid[place]) for place in range(3))
    _accuracy(accuracy, results, story.ours)
    accuracy.set_title("Test accuracy, %, and its 95 % interval")

    seconds = [one.seconds or 0 for one in results]
    _lines(training, results)
    training.barh(range(len(results)), seconds, height=0.5, color=[_color(one, story.ours) for one in results])
    training.set_xlim(0, max(1, *seconds) * 1.2)
    training.locator_params(axis="x", nbins=5)
    _label(training, seconds, [duration(one.seconds) for one in results])
    training.set_title("Training, seconds")

    sizes = [one.size for one in results]
    _lines(kept, results)
    kept.set_xscale("log")
    kept.scatter(sizes, range(len(results)), s=60, color=[_color(one, story.ours) for one in results])
    kept.set_xlim(1e3, 2e10)
    kept.set_xticks(list(BYTES), list(BYTES.values()))
    kept.minorticks_off()
    _label(kept, sizes, [size(one) for one in sizes])
    kept.set_title("To keep for each task (log scale)")

    for place, sentence in enumerate(story.compared):
        figure.text(0.13, 0.562 - 0.022 * place, sentence, fontsize=9.5)


def _color(one: Measured, ours: str) -> str:
    return BLUE if one.way == ours else GREY


def _lines(axes: Any, results: Sequence[Measured], names: bool = False) -> None:
    """One line for each way, the first on top."""
    axes.set_ylim(len(results) - 0.5, -0.7)
    axes.set_yticks(range(len(results)), [one.way for one in results] if names else [""] * len(results))
    axes.tick_params(axis="y", length=0)


def _accuracy(axes: Any, results: Sequence[Measured], ours: str) -> None:
    _lines(axes, results, names=True)
    for place, one in enumerate(results):
        low, value, high = (
            100 * number for number in (one.estimate.interval[0], one.estimate.value, one.estimate.interval[1])
        )
        axes.plot([low, high], [place, place], color=_color(one, ours), linewidth=2.5, solid_capstyle="round")
        axes.plot(value, place, "o", color=_color(one, ours), markersize=8)
        axes.annotate(f"{value:.1f}", (value, place), (0, 6), textcoords="offset points", ha="center", fontsize=9)


def _label(axes: Any, values: Sequence[float], labels: Sequence[str]) -> None:
    for place, (value, label) in enumerate(zip(values, labels, strict=True)):
        axes.annotate(label, (value, place), (7, 0), textcoords="offset points", va="center", fontsize=9)


def _second_task(figure: Any, story: Story) -> None:
    results = story.origin
    axes = figure.add_axes((0.13, 0.345, 0.345, 0.095))
    _accuracy(axes, results, story.ours)
    axes.set_title("Another task on the same model: which of four sources is a text from? Accuracy, %")
    learned = next(one for one in results if one.way == story.ours)
    figure.text(
        0.53,
        0.385,
        f"{story.ours}: {duration(learned.seconds)} of training, {size(learned.size)}; {learned.estimate.rows} test rows.\n"
        f"Both prompts load in {1000 * story.mixed.loading:.0f} ms beside one model.",
        linespacing=1.6,
    )


def _batch(figure: Any, mixed: Mixed) -> None:
    """The texts with both prompts' answers."""
    left, top, columns = 0.02, 0.262, (0.61, 0.80)
    figure.text(left, top, "One batch, two prompts: each row is answered by its own", fontsize=11)
    for x, question in zip(columns, ("is it good?", "where is it from?"), strict=True):
        figure.text(x, top, question, fontsize=11)
    for place, (text, answers) in enumerate(mixed.shown):
        height = top - 0.035 * (place + 1)
        drawable = "".join(char for char in text if ord(char) < 0x2500)  # the font has no emoji
        figure.text(left, height, textwrap.shorten(drawable, WIDEST, placeholder=" …"), fontsize=9)
        for x, answer in zip(columns, answers.values(), strict=True):
            figure.text(x, height, str(answer), fontsize=9.5, color=BLUE if answer.right else INK)
    figure.text(left, 0.055, mixed.summary())
    figure.text(
        left,
        0.028,
        "The texts are the first test row of each source. Intervals say what other test rows would give, not other seeds.",
        fontsize=9,
    )
