"""Charts as inline SVG: text stays text, colours are the page's CSS variables, equal data gives equal bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from xml.etree import ElementTree

from softprompt.errors import MissingExtraError, visible_controls

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 340, 250  # of a chart in CSS pixels: a phone's width, so that text keeps its size there
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# colours no chart uses by itself; each becomes the CSS variable of that name
INK, SOFT, GRID = "#010a01", "#010a02", "#010a03"
_VARIABLES = {INK: "ink", SOFT: "soft", GRID: "grid", **{f"#010b{i:02x}": f"c{i}" for i in range(8)}}
_MARKERS = "osD^vPX<>hdp*"
Dash = str | tuple[float, tuple[float, ...]]
"""A line's pattern, as matplotlib takes it: its name, or (offset, lengths of strokes and gaps)."""
_DASHES: list[Dash] = ["-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1))]
_PATHS = {  # markers for the page's own small drawings, 12 × 12
    "o": '<circle cx="6" cy="6" r="4.2"/>',
    "s": '<path d="M2 2h8v8h-8z"/>',
    "D": '<path d="M6 1l5 5-5 5-5-5z"/>',
    "^": '<path d="M6 1.5l5 9H1z"/>',
    "v": '<path d="M6 10.5l5-9H1z"/>',
    "P": '<path d="M4.2 1h3.6v3.2H11v3.6H7.8V11H4.2V7.8H1V4.2h3.2z"/>',
    "X": '<path d="M3.3 1L6 3.7 8.7 1 11 3.3 8.3 6 11 8.7 8.7 11 6 8.3 3.3 11 1 8.7 3.7 6 1 3.3z"/>',
    "<": '<path d="M1.5 6l9-5v10z"/>',
    ">": '<path d="M10.5 6l-9-5v10z"/>',
    "h": '<path d="M6 1l4.5 2.5v5L6 11 1.5 8.5v-5z"/>',
    "d": '<path d="M6 .5l3.2 5.5L6 11.500 2.800 6z"/>',
    "p": '<path d="M6 1l5 3.700-2 6H3l-2-6z"/>',
    "*": '<path d="M6 .5l1.500 3.800 4 .2-3.100 2.600 1 4L6 8.900l-3.400 2.200 1-4L.5 4.500l4-.2z"/>',
}


@dataclass(frozen=True)
class Look:
    """How a contender is drawn, the same everywhere.

    Attributes:
        color: index of the CSS variable `--cN`; 0 is ink (the reference), None grey (what is not learned).
        marker: of its family, as matplotlib names it.
    """

    color: int | None
    marker: str
    dash: int

    @property
    def hue(self) -> str:
        """Placeholder that becomes the variable."""
        return SOFT if self.color is None else f"#010b{self.color:02x}"

    @property
    def css(self) -> str:
        """For the page's own drawings."""
        return "var(--soft)" if self.color is None else f"var(--c{self.color})"

    @property
    def path(self) -> str:
        """The marker as SVG of 12 × 12; ours, so safe as markup."""
        return _PATHS[self.marker]

    @property
    def line(self) -> Dash:
        """Dash pattern for matplotlib."""
        return _DASHES[self.dash]


def looks_of(
    names: Sequence[str], family_of: dict[str, str], learned: dict[str, bool], reference: str
) -> dict[str, Look]:
    """A colour for each contender (Okabe & Ito 2008; the reference in ink, unlearned ones grey), a marker for each family."""
    families = list(dict.fromkeys(family_of[name] for name in names))
    found, used, grey = {}, 0, 0
    for name in names:
        marker = _MARKERS[families.index(family_of[name]) % len(_MARKERS)]
        if name == reference:
            found[name] = Look(0, marker, 0)
        elif not learned[name]:
            grey += 1
            found[name] = Look(None, marker, grey % len(_DASHES))
        else:
            found[name] = Look(1 + used % 7, marker, used // 7 % len(_DASHES))
            used += 1
    return found


class Charts:
    """Makes charts for one page; each gets ids of its own.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """

    def __init__(self) -> None:
        try:
            import matplotlib
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtraError("bench report draws with matplotlib: pip install 'softprompt[bench]'") from error
        self.context = matplotlib.rc_context
        self.figure, self.canvas, self.made = Figure, FigureCanvasAgg, 0

    def axes(self, width: float = WIDTH, height: float = HEIGHT) -> Axes:
        """Axes of a new chart, its size in CSS pixels. Draw inside `with charts.style():`."""
        # 72 points to an inch, and the drawing's unit is the point, which the page shows as one pixel
        figure = self.figure(figsize=(width / 72, height / 72), layout="constrained")
        self.canvas(figure)  # measures texts
        return figure.subplots()

    def style(self) -> AbstractContextManager[None]:
        """The settings under which charts are drawn and saved."""
        return self.context(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": "softprompt",
                "text.parse_math": False,  # names of contenders are not formulas
                "font.family": "DejaVu Sans",  # it comes with matplotlib, so texts are measured alike everywhere
                "font.size": 10,
                "axes.titlesize": 10,
                "axes.labelsize": 10,
                "xtick.labelsize": 9,
                "ytick.labelsize": 9,
                "legend.fontsize": 9,
                "legend.frameon": False,
                "axes.edgecolor": SOFT,
                "axes.labelcolor": INK,
                "axes.facecolor": "none",
                "figure.facecolor": "none",
                "text.color": INK,
                "xtick.color": SOFT,
                "ytick.color": SOFT,
                "xtick.labelcolor": INK,
                "ytick.labelcolor": INK,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.grid": True,
                "axes.axisbelow": True,
                "grid.color": GRID,
                "grid.linewidth": 0.8,
                "lines.linewidth": 1.6,
                "lines.markersize": 6,
            }
        )

    def svg(self, axes: Axes, title: str) -> str:
        """The chart as an `<svg>` to put into HTML, `title` being its text for who cannot see it."""
        self.made += 1
        file = io.BytesIO()
        cast("Figure", axes.figure).savefig(file, format="svg", metadata={"Date": None})
        return _inlined(visible_controls(file.getvalue().decode("utf-8")), f"f{self.made}", title)


def _inlined(data: str, prefix: str, title: str) -> str:
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    root = ElementTree.fromstring(data)  # drops comments
    for part in [part for part in root if part.tag.endswith("}metadata")]:
        root.remove(part)
    for parent in list(root.iter()):
        for style in [child for child in parent if child.tag.endswith("}style")]:
            parent.remove(style)  # it would hold for the whole page
    ids = {part.get("id") for part in root.iter()} - {None}
    for part in root.iter():
        for name, value in list(part.attrib.items()):
            if name == "id":
                part.set(name, f"{prefix}-{value}")
            elif value.startswith("#") and value[1:] in ids:
                part.set(name, f"#{prefix}-{value[1:]}")
            elif "url(#" in value:
                part.set(name, value.replace("url(#", f"url(#{prefix}-"))
            elif name in ("style", "fill", "stroke"):
                for color, variable in _VARIABLES.items():
                    value = value.replace(color, f"var(--{variable})")
                part.set(name, value.replace("'DejaVu Sans'", "inherit").replace("DejaVu Sans", "inherit"))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    label = ElementTree.Element(f"{{{_SVG}}}title")
    label.text = title
    root.insert(0, label)
    return ElementTree.tostring(root, encoding="unicode")
