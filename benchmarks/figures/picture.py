"""README's picture: accuracy on ten tasks against processor time, a point for each contender, for light and dark pages.

    python -m softprompt.benchmarks.figures.picture      # writes docs/pictures/ten-tasks-{light,dark}.svg

Each picture holds the digest of what it shows, so that a test can tell when the records have moved on.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from softprompt.benchmarks.defaults import records
from softprompt.benchmarks.defaults.report import Cells, interval_of
from softprompt.benchmarks.figures.defaults import LEAST, seeds_of
from softprompt.storage import digest_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

OURS = "auto"
LEFT_OUT = {"majority", "minilm-prefix", "minilm-lora", "minilm-full"}
NAMES = {
    "auto": "softprompt's default",
    "tfidf": "TF-IDF + regression",
    "minilm_lr": "MiniLM + regression",
    "setfit-60": "SetFit, 60 steps",
    "setfit": "SetFit",
    "probe": "probe",
    "lora": "LoRA",
    "lora-cue": "activated LoRA",
    "soft": "soft prompt",
    "p_tuning": "P-tuning",
    "full": "full fine-tuning",
}
COLOURS = {
    "light": {"ink": "#24292f", "faint": "#8c959f", "ours": "#0969da", "peer": "#bc4c00", "method": "#57606a"},
    "dark": {"ink": "#e6edf3", "faint": "#7d8590", "ours": "#58a6ff", "peer": "#ffa657", "method": "#adbac7"},
}
PEERS = {"tfidf", "minilm_lr", "setfit-60", "setfit"}
LEAST_SECONDS = 1.0  # where the scale begins
# Where a name may stand: offset in points, alignment across and up.
SIDES = (
    ((11, 0), "left", "center"),
    ((-11, 0), "right", "center"),
    ((0, 11), "center", "bottom"),
    ((0, -11), "center", "top"),
    ((9, 12), "left", "bottom"),
    ((9, -12), "left", "top"),
    ((-9, 12), "right", "bottom"),
    ((-9, -12), "right", "top"),
)


@dataclass(frozen=True)
class Point:
    """A contender.

    Attributes:
        accuracy: mean over tasks, then over seeds, in %.
        half: of its 95 % interval over seeds, in points; None of fewer than three seeds.
        seconds: of a processor, mean of its runs.
    """

    name: str
    accuracy: float
    half: float | None
    seconds: float


def points(root: Path) -> list[Point]:
    """All contenders that ran on all tasks, the fastest first."""
    cells = Cells.of(records.read_all(root / "benchmarks/results/defaults"))
    shown = []
    for name in cells.contenders:
        seeds = seeds_of(cells, name)
        if name in LEFT_OUT or not seeds:
            continue
        runs = {seed: [cells.by_name[task, name][seed] for task in cells.tasks] for seed in seeds}
        by_seed = [mean(run.accuracy for run in of_seed) * 100 for of_seed in runs.values()]
        half = interval_of(by_seed)[1] if len(by_seed) >= LEAST else None
        seconds = mean(run.cpu_seconds for of_seed in runs.values() for run in of_seed)
        shown.append(Point(name, mean(by_seed), half, seconds))
    return sorted(shown, key=lambda point: point.seconds)


def digest(shown: list[Point]) -> str:
    """Of what a picture shows."""
    return digest_of([list(astuple(point)) for point in shown])


def draw(shown: list[Point], mode: str, path: Path) -> None:
    """Write one picture (SVG)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    colour = COLOURS[mode]
    style: Any = {"svg.hashsalt": "softprompt", "svg.fonttype": "path", "font.size": 11, "font.family": "DejaVu Sans"}
    with plt.rc_context(style):
        figure, axes = plt.subplots(figsize=(8, 4.4))
        _dress(axes, colour)
        axes.set_xlim(LEAST_SECONDS / 1.4, max(600.0, shown[-1].seconds * 1.5))
        for point in shown:
            x, tone = max(point.seconds, LEAST_SECONDS), _tone(point, colour)
            size = 10 if point.name == OURS else 7
            axes.errorbar(x, point.accuracy, yerr=point.half, fmt="o", color=tone, markersize=size, capsize=3)
        figure.tight_layout()
        _name_points(axes, shown, colour)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, transparent=True, metadata={"Date": None, "Description": digest(shown)})
        plt.close(figure)


def _tone(point: Point, colour: dict[str, str]) -> str:
    return colour["ours" if point.name == OURS else "peer" if point.name in PEERS else "method"]


def _dress(axes: Axes, colour: dict[str, str]) -> None:
    """Title, scales and lines."""
    title = "Right answers on ten public tasks, 128 labelled rows each"
    axes.set_title(title, loc="left", color=colour["ink"], fontweight="bold", pad=14)
    axes.set_xscale("log")
    axes.set_xlabel("processor time of a run: training, and 300 test rows", color=colour["ink"])
    axes.set_ylabel("accuracy, %", color=colour["ink"])
    axes.set_xticks([1, 10, 60, 600], ["≤ 1 s", "10 s", "1 min", "10 min"])
    axes.minorticks_off()
    axes.tick_params(colors=colour["faint"])
    axes.grid(axis="y", color=colour["faint"], alpha=0.25)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(colour["faint"])


def _name_points(axes: Axes, shown: list[Point], colour: dict[str, str]) -> None:
    """Write each name beside its point, on the first side where it covers no point and no other name."""
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    taken = [_extent(axes, point) for point in shown]
    frame = axes.figure.bbox
    for point in sorted(shown, key=lambda point: point.name != OURS):
        text = axes.annotate(
            NAMES.get(point.name, point.name),
            (max(point.seconds, LEAST_SECONDS), point.accuracy),
            xytext=SIDES[0][0],
            textcoords="offset points",
            color=_tone(point, colour),
            fontweight="bold" if point.name == OURS else "normal",
        )
        for (x, y), across, up in SIDES:
            text.set(position=(x, y), horizontalalignment=across, verticalalignment=up)
            box = text.get_window_extent(renderer)
            if frame.x0 <= box.x0 and box.x1 <= frame.x1 and not any(box.overlaps(other) for other in taken):
                break
        taken.append(text.get_window_extent(renderer))


def _extent(axes: Axes, point: Point) -> Bbox:
    """Of a point and its interval, in pixels."""
    from matplotlib.transforms import Bbox

    half = point.half or 0.0
    ends = [(max(point.seconds, LEAST_SECONDS), point.accuracy + sign * half) for sign in (-1, 1)]
    (x, low), (_, high) = axes.transData.transform(ends)
    return Bbox([[x - 8, low - 8], [x + 8, high + 8]])


def main() -> None:
    """Write both pictures."""
    root = Path(__file__).resolve().parents[2]
    shown = points(root)
    for mode in COLOURS:
        draw(shown, mode, root / f"docs/pictures/ten-tasks-{mode}.svg")


if __name__ == "__main__":
    main()
