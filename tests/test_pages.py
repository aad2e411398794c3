"""Our HTML pages for all who read them: on a phone, in the dark, by the keyboard, by a screen reader."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers import tiny_task
from models import tiny_base
from results_maker import make_results
from test_reporting import chosen, report, rows_of
from test_try import line

from softprompt.artifact import load
from softprompt.benchmarks.ways.advice import advice
from softprompt.benchmarks.ways.page import page_of
from softprompt.benchmarks.ways.table import Curve
from softprompt.benchmarks.ways.tried import Tried
from softprompt.data import Row
from softprompt.reporting import page
from softprompt.reporting.inspected import Inspected, LearnedToken, inspected, inspected_page

CHECK = Path(__file__).parent / "pages" / "check.mjs"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

IN_A_BROWSER = pytest.mark.skipif(
    not CHROMIUM or not shutil.which("node") or not (CHECK.parent / "node_modules").exists(),
    reason="needs node, Chromium, and npm install in tests/pages (make pages)",
)


def shots_into() -> list[str]:
    """Where pictures go, if anywhere: the folder SHOTS, as an option of the scripts."""
    shots = os.environ.get("SHOTS")
    if shots:
        Path(shots).mkdir(parents=True, exist_ok=True)
    return ["--shots", shots] if shots else []


def of_an_evaluation() -> str:
    outcomes = chosen(["good", "a label of quite some length"])
    task = tiny_task(verbalizer={"good": "good", "a label of quite some length": "long"})
    return page(report(task, outcomes, rows_of(outcomes)))


def of_a_cross_validation() -> str:
    lines = [line(6, 0.98, None), line(2, 0.975, (-0.005, -0.02, 0.01)), line(0, 0.6, (-0.38, -0.4, -0.36), folds=2)]
    curves = [
        Curve([line(place, low, None, labels=100), line(place, high, None)], None)
        for place, low, high in ((6, 0.9, 0.98), (2, 0.85, 0.975))
    ]
    labels, advised = {"billing": 100, "other": 100}, advice(lines, lines[0], 3)
    found = Tried(Path("tickets.csv"), Path("runs"), labels, "accuracy", 200, 200, 3, lines, curves, lines[0], advised)
    return page_of(found)


def of_a_comparison(folder: Path) -> str:
    pytest.importorskip("matplotlib")
    pytest.importorskip("statsmodels")
    from softprompt.benchmarks.compare.report import write_report

    write_report(make_results(folder, rows=30, tests=("reviews", "tweets"), sizes=(32, 64), measured=True))
    return (folder / "report.html").read_text("utf-8")


def of_an_artifact() -> str:
    what = inspected(load(Path(__file__).parent / "golden" / "soft_v1"))
    words = [("a word", 0.31), ("的", 0.3), ("internationalisation", 0.29)]
    what.tokens += [LearnedToken(1.5 + place, words) for place in range(8)]
    what.notices.append("a notice of some length, such as that the base is not there any more")
    return inspected_page(what)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """One page of each kind, with most of what may stand in it."""
    folder = tmp_path_factory.mktemp("pages")
    made = {
        "evaluation": of_an_evaluation(),
        "cross-validation": of_a_cross_validation(),
        "comparison": of_a_comparison(folder / "results"),
        "artifact": of_an_artifact(),
    }
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


class Outline(HTMLParser):
    """Headings, boxes and tables of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.empty_headers, self._header = 0, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch(r"h\d", tag):
            self.headings.append(int(tag[1]))
        if tag == "th":
            self._header = ""

    def handle_data(self, data):
        if self._header is not None:
            self._header += data

    def handle_endtag(self, tag):
        if tag == "th":
            self.empty_headers += not self._header.strip()
            self._header = None


@pytest.mark.parametrize("name", ["evaluation", "cross-validation", "comparison", "artifact"])
def test_a_page_has_landmarks_headings_and_names(pages, name):
    """What needs no browser; the rest is `test_axe_finds_nothing`."""
    outline = Outline(pages[name].read_text("utf-8"))
    tags = [tag for tag, _ in outline.tags]
    assert all(tags.count(tag) == 1 for tag in ("main", "header", "h1")) and outline.headings[0] == 1
    assert all(after <= before + 1 for before, after in zip(outline.headings, outline.headings[1:], strict=False))
    boxes = [attrs for _, attrs in outline.tags if "scroll" in (attrs.get("class") or "").split()]
    assert boxes and all(box["tabindex"] == "0" and box["role"] == "group" and box["aria-label"] for box in boxes)
    assert not outline.empty_headers
    pictures = [attrs for tag, attrs in outline.tags if tag == "svg"]
    assert bool(pictures) == (name != "artifact")
    assert all(attrs.get("role") == "img" or attrs.get("aria-hidden") == "true" for attrs in pictures)


HOSTILE = (
    "nul \x00",
    "escape \x1b[31m",
    "\x9b \x7f \x08 \r",
    "turned \u202e",
    "two\nlines\tof 中文 \U0001f600 a\u200db",
)


def test_control_characters_are_shown_as_escapes(tmp_path):
    """Labels, texts and names: HTML cannot hold NUL, and a terminal that shows the page's source obeys ESC."""
    outcomes = chosen(list(HOSTILE))
    rows = [
        Row({"text": HOSTILE[place % len(HOSTILE)], "label": one.gold}, one.where) for place, one in enumerate(outcomes)
    ]
    task = tiny_task(verbalizer={label: f"word{place}" for place, label in enumerate(HOSTILE)})
    what = Inspected(
        "\x00", [("\x1b", "\x00")], [], [], {"\x1b": "\x00"}, [LearnedToken(1.0, [("\x00", 0.5)])], ["\x1b"]
    )
    lines = [line(place, 0.9, None) for place in (6, 0)]
    found = Tried(
        Path("\x1b.csv"), tmp_path, dict.fromkeys(HOSTILE, 9), "accuracy", 45, 45, 3, lines, [], lines[0], [*HOSTILE]
    )
    for text in (page(report(task, outcomes, rows)), inspected_page(what), page_of(found)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text) and "\\x00" in text and "\\x1b" in text
        (tmp_path / "page.html").write_text(text, encoding="utf-8")
    assert "lines\tof 中文 \U0001f600 a\u200db" in page_of(found)  # what is no control stays as it is


@pytest.mark.filterwarnings("ignore:Glyph 27")
def test_control_characters_in_a_comparison(tmp_path):
    pytest.importorskip("matplotlib")
    from softprompt.benchmarks.compare.report import write_report

    names = {"probe": "probe \x1b[31m"}
    write_report(make_results(tmp_path, rows=30, labels=HOSTILE[:3], sizes=(32,), rename=names, failures=False))
    text = (tmp_path / "report.html").read_bytes().decode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text) and "nul \\x00" in text and "probe \\x1b" in text


@pytest.mark.full
@IN_A_BROWSER
def test_axe_finds_nothing(pages):
    """By axe-core's rules, at a phone's and a desktop's width, light and dark; nothing beyond the window or the keyboard."""
    command = ["node", CHECK, CHROMIUM, *pages.values(), *shots_into()]
    results = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=600).stdout)
    assert len(results) == 4 * len(pages)
    for found in results:
        where = f"{found['page']}, {found['width']} pixels, {found['theme']}"
        assert found["beyond"] <= 0 and not found["unreachable"] and not found["violations"], f"{where}: {found}"


@pytest.mark.full
@IN_A_BROWSER
def test_the_page_of_the_server_answers(tmp_path):
    """As a person uses it: what it shows is what the runtime answers, and nothing comes from elsewhere."""
    pytest.importorskip("fastapi")
    pytest.importorskip("prometheus_client")
    from test_serve_end import opened

    from softprompt import Runtime
    from softprompt.serve.service import Service

    runtime = Runtime(tiny_base())
    for name in ("mood", "taste", "weather"):
        task = tiny_task(template={"input": "Text: {{ text }}", "question": f"\n{name}?", "cue": "\nIt is:"})
        runtime.add(name, task)
    with opened(Service(runtime)) as (port, *_):
        command = ["node", CHECK.with_name("serve.mjs"), CHROMIUM, f"http://127.0.0.1:{port}/", *shots_into()]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=300).stdout)
    assert found["offered"] == ["mood", "taste", "weather"] and found["none"] == "Tick at least one artifact."
    for (name, label, sure), expected in zip(found["rows"], ["mood", "taste"], strict=True):
        alone = runtime.predict(["joy and sun <b>and</b> rain"], expected)[0]
        assert (name, label) == (expected, alone.label)
        assert sure.split(", ")[0] == f"{alone.label} {alone.probabilities[alone.label]:.3f}"
    assert found["status"] == "2 answers."
    assert re.fullmatch(r"text read once: \d+ ms, each artifact behind it: \d+\.\d ms", found["timing"])
    assert "no artifact 'gone' is loaded" in found["refused"]
    assert {url.split("/")[2] for url in found["requests"]} == {f"127.0.0.1:{port}"}
    assert not found["said"] and not found["violations"]
