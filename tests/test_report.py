"""The report of a comparison: its numbers are those of the answers, its page is whole, safe and the same each time."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from results_maker import make_results

from softprompt.benchmarks.compare.record import Measured, Place, Record, read_all, write
from softprompt.benchmarks.compare.report import numbers, write_report
from softprompt.benchmarks.compare.report.answers import LETTERS, agreement, confusions, examples
from softprompt.benchmarks.compare.report.charts import front_of
from softprompt.benchmarks.compare.report.figures import Charts, looks_of
from softprompt.benchmarks.compare.report.gather import Report, gather
from softprompt.benchmarks.compare.report.labels import name_points
from softprompt.benchmarks.compare.report.page import page
from softprompt.benchmarks.compare.report.words import origin
from softprompt.benchmarks.compare.results import Results
from softprompt.errors import DataError, MissingExtraError
from softprompt.metrics import metric_of

FEW = ("majority", "zero-shot", "prefix-length=5", "prefix-length=20", "full")
EVIL = "<script>alert(1)</script>"
VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Reads a page: whether its tags close, its ids, what it refers to, its cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: Counter[str] = Counter()
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "xlink:href", "src", "srcset"):
                self.links.append(value)
            self.links += [f"#{found}" for found in re.findall(r"url\(#([^)]+)\)", value or "")]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = make_results(tmp_path_factory.mktemp("made"), rows=60, tests=("reviews", "tweets"), measured=True)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def report(made) -> Report:
    return gather(Results.load(made))


@pytest.fixture(scope="module")
def shown(made) -> Page:
    return Page((made / "report.html").read_text(encoding="utf-8"))


def small(folder: Path, **changes) -> Path:
    return make_results(folder, **{"rows": 30, "sizes": (64,), "contenders": FEW, "failures": False, **changes})


def lines_of(folder: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / name).read_text(encoding="utf-8"))))


def test_page_is_whole_and_stands_alone(shown, made):
    assert len(shown.ids) == len(set(shown.ids))
    assert all(link.startswith("#") and link[1:] in shown.ids for link in shown.links) and shown.links
    assert not shown.tags["script"] and not shown.tags["link"] and shown.tags["style"] == 1
    text = (made / "report.html").read_text(encoding="utf-8")
    assert '<meta name="viewport"' in text and "@import" not in text
    assert set(re.findall(r"https?://[^\s\"'<>]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_every_colour_is_there_in_light_dark_and_print(made):
    text = (made / "report.html").read_text(encoding="utf-8")
    themes = re.findall(r":root\{([^}]*)\}", text)
    assert len(themes) == 3
    used = set(re.findall(r"var\(--([\w]+)\)", text)) - {"v"}
    assert {"ink", "soft", "grid", "c0", "c1"} <= used
    for theme in themes:
        assert used <= set(re.findall(r"--(\w+):", theme))
    assert "#010a" not in text and "#010b" not in text  # no placeholder is left


def test_all_parts_are_there(shown):
    for part in (
        "Runs that failed, in none of the tables",
        "All at a glance",
        "Transfer at 256 training rows",
        "Learning curves",
        "Sensitivity to the learning rate",
        "Sensitivity to settings",
        "Looks at dev over steps",
        "Confusion of labels",
        "Agreement",
        "Rows where they part",
        "Run it again",
        "--set 'seeds=[0,1,2]'",
        "sizes above 256",
        "with uncommitted changes",
        "5 learning rates of each method",
    ):
        assert part in shown.text
    assert shown.tags["figure"] == 4 + 1 + 5 + 2 + 8  # fronts, curves, families' rates, factors, dev evaluations
    assert "not measured" not in shown.text


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.full)])
def test_equal_results_give_equal_bytes(tmp_path, request, whole):
    made = request.getfixturevalue("made") if whole else small(tmp_path)
    if not whole:
        write_report(made)
    before = {path.name: path.read_bytes() for path in made.iterdir() if path.is_file() and path.name != "suite.json"}
    again = write_report(made)
    assert [path.name for path in again] == ["report.html", "report.md", "report.csv", "summary.csv"]
    assert before == {path.name: path.read_bytes() for path in again}


def test_numbers_are_those_of_the_answers(made):
    records = [one for one in read_all(made).values() if one.stage == "final" and one.status == "done"]
    gold = {
        test: json.loads((made / "rows" / f"{test}-digest.json").read_text())["gold"] for test in ("reviews", "tweets")
    }
    text = (made / "report.md").read_text(encoding="utf-8")
    lines = lines_of(made, "summary.csv")
    assert len(lines) == 2 * 2 * 12
    for line in lines:
        own = [
            one
            for one in records
            if one.place.contender == line["contender"] and str(one.place.size or "") == line["size"]
        ]
        hits = [
            [a == b for a, b in zip(gold[line["test"]], one.tests[line["test"]].predicted, strict=True)] for one in own
        ]
        assert float(line["mean"]) == pytest.approx(np.mean(hits))
        assert float(line["low"]) <= np.mean(hits) <= float(line["high"]) and int(line["seeds"]) == len(own)
        assert re.search(
            rf"\| {re.escape(line['contender'])}(?: \(not trained\))? \| {np.mean(hits) * 100:.1f} \|", text
        )
    by_place = {(line["contender"], line["table_size"], line["test"]): line for line in lines}
    for (name, size, test), line in by_place.items():
        full = by_place["full", size, test]
        if name == "full":
            assert line["difference"] == line["verdict"] == ""
        else:
            assert float(line["difference"]) == pytest.approx(float(line["mean"]) - float(full["mean"]))
            assert line["verdict"] in ("better", "worse", "no worse", "unclear") and line["words"]


def test_runs_as_csv(made):
    lines, records = lines_of(made, "report.csv"), read_all(made)
    finals = [one for one in records.values() if one.stage == "final" and one.status == "done"]
    assert len(lines) == 2 * len(finals)
    for line in lines:
        record = records[line["id"]]
        assert float(line["value"]) == record.tests[line["test"]].value and line["seed"] == str(record.seed)
        assert json.loads(line["factors"] or "{}") == record.place.factors


def test_tables_are_ranked_and_marked(report):
    assert [(table.test, table.size) for table in report.tables] == [
        ("reviews", 32),
        ("reviews", 256),
        ("tweets", 32),
        ("tweets", 256),
    ]
    for table in report.tables:
        means = [line.mean.value for line in table.lines]
        assert means == sorted(means, reverse=True) and len(means) == 12
        assert {line.name for line in table.lines if not line.learned} == {"majority", "zero-shot", "8-shot"}
    assert report.names[-1] == "full" and report.names.index("prefix-length=5") < report.names.index("prefix-length=20")


def test_failed_runs_stand_apart(made, shown):
    assert "adapters-broken" in shown.text and "the loss is NaN at step 12" in shown.text
    assert all(line["contender"] != "adapters-broken" for line in lines_of(made, "summary.csv"))
    text = (made / "report.md").read_text(encoding="utf-8")
    assert text.index("the loss is NaN") < text.index("| contender |")


def test_hostile_names_labels_texts(tmp_path):
    names = {"prefix-length=5": EVIL, "prefix-length=20": "$\\frac{a$ | `x`", "full": "=full()"}
    folder = small(
        tmp_path,
        labels=(EVIL, "\"><img src=x onerror='alert(2)'>", "c"),
        rename=names,
        suite={
            "title": f"{EVIL} & co",
            "cut": [EVIL],
            "command": f"run ``` {EVIL}",
            "machine": {EVIL: EVIL},
            "when": EVIL,
        },
    )
    place = Place(base=EVIL, task=EVIL, contender=EVIL)
    write(
        folder,
        Record(id="bad", suite="x", stage="final", status="failed", reason=f"{EVIL}|{EVIL}", place=place, seed=0),
    )

    class Texts(dict):
        def get(self, where, default=""):
            return f"{where} {EVIL} </style></svg><iframe src=//x>"

    write_report(folder, lambda test: Texts())
    text = (folder / "report.html").read_text(encoding="utf-8")
    found = Page(text)
    assert not found.tags["script"] and not found.tags["img"] and not found.tags["iframe"]
    assert EVIL in found.text and "<iframe src=//x>" in found.text and "$\\frac{a$ | `x`" in found.text
    md = (folder / "report.md").read_text(encoding="utf-8")
    outside = md[: md.index("## Run it again")]
    assert "\\<script\\>" in outside and not re.search(r"(?<!\\)<script", outside)
    assert "````bash" in md
    for line in outside.splitlines():
        if line.startswith("| ") and "full" in line and "=full()" in line:
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 6, 12)  # facts, costs, ranking: no cell is split
    assert {line["contender"] for line in lines_of(folder, "summary.csv")} >= {"'=full()", EVIL}


def test_one_size_without_more(tmp_path):
    folder = small(tmp_path, contenders=("majority", "full"), seeds=(0,))
    text = Page(page(gather(Results.load(folder)))).text
    for absent in (
        "Learning curves",
        "Transfer",
        "Sensitivity to settings",
        "All at a glance",
        "Contents",
        "that failed,",
    ):
        assert absent not in text
    assert "Peak memory: not measured: run with --isolate" in text


def test_without_the_reference_nothing_is_compared(tmp_path):
    folder = small(tmp_path, contenders=("majority", "probe", "soft"))
    (table,) = gather(Results.load(folder)).tables
    assert table.reference is None and all(line.comparison is None for line in table.lines)
    write_report(folder)
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "nothing is compared, as full has no finished run here" in text


def test_other_rows_are_not_compared(tmp_path):
    folder = small(tmp_path, contenders=("majority", "probe", "full"))
    where = [f"other:{i}" for i in range(30)]
    (folder / "rows" / "other.json").write_text(json.dumps({"where": where, "gold": ["neutral"] * 30}))
    for record in read_all(folder).values():
        if record.place.contender == "probe":
            record.tests["reviews"] = record.tests["reviews"].model_copy(update={"digest": "other"})
            write(folder, record)
    (table,) = gather(Results.load(folder)).tables
    assert [line.name for line in table.lines] == ["full", "majority"]
    assert table.notes == ["Tested on other rows, so not compared here: probe."]


def test_fewer_seeds_are_told(tmp_path):
    folder = small(tmp_path, contenders=("majority", "probe", "full"))
    next((folder / "runs").glob("*probe*s2.json")).unlink()
    (table,) = gather(Results.load(folder)).tables
    assert table.notes == [
        "Fewer seeds than the others (3): probe.",
        "Has other seeds than full; those that both have are compared: probe.",
    ]


def test_trials_without_a_reported_run_are_told(tmp_path):
    small(tmp_path)
    for path in tmp_path.glob("runs/*prefix-length=5_*_final_*.json"):
        path.unlink()
    write_report(tmp_path)
    (table,) = gather(Results.load(tmp_path)).tables
    assert [note for note in table.notes if "prefix-length=5" in note and "no reported run" in note]


def test_a_method_that_was_trained_once_is_told(tmp_path):
    small(tmp_path)
    for path in tmp_path.glob("runs/*_full_*_final_s[12].json"):
        path.unlink()
    (table,) = gather(Results.load(tmp_path)).tables
    assert [note for note in table.notes if note.startswith("Trained once: full.")]
    assert not [note for note in table.notes if "Trained once" in note and "zero-shot" in note]


def test_seeds_that_both_have_are_compared(tmp_path):
    small(tmp_path, seeds=(0, 1, 2, 3))
    for name, seed in (("full", 1), ("prefix-length=5", 3)):
        next(tmp_path.glob(f"runs/*_{name}_*_final_s{seed}.json")).unlink()
    (table,) = gather(Results.load(tmp_path)).tables
    lines = {line.name: line for line in table.lines}
    assert [note for note in table.notes if "Has other seeds than full" in note and "prefix-length=5" in note]
    full, prefix = lines["full"], lines["prefix-length=5"]
    found = prefix.comparison
    both = prefix.scores[[0, 2]].mean() - full.scores[[0, 1]].mean()  # 0, 2 of 0, 1, 2 and of 0, 2, 3
    assert found.seeds == (2, 2) and found.difference == pytest.approx(both)
    assert lines["zero-shot"].comparison.seeds == (1, 3)


def test_machines_dates_and_versions_are_those_of_the_runs(tmp_path):
    small(tmp_path)
    path = next(tmp_path.glob("runs/*_full_*_final_s0.json"))
    record = Record.model_validate_json(path.read_text())
    other = {"machine": record.machine | {"threads": 1}, "versions": {"torch": "2.14.0"}, "when": "2026-02-03T00:00:00"}
    write(tmp_path, record.model_copy(update=other))
    facts = dict(origin(gather(Results.load(tmp_path))))
    assert "2 threads" in facts["machine"] and "1 threads" in facts["machine"]
    assert facts["date"] == "2026-01-02 to 2026-02-03"
    assert "torch 2.13.0" in facts["versions"] and "torch 2.14.0" in facts["versions"]


def test_looks_by_likelihood_are_named_so(tmp_path):
    small(tmp_path, metric="chrf")
    for record in read_all(tmp_path).values():
        curve = [look.model_copy(update={"metric": "log_likelihood", "value": -look.nll}) for look in record.curve]
        write(tmp_path, record.model_copy(update={"curve": curve}))
    text = (tmp_path / "report.html") if write_report(tmp_path) else None
    assert "dev log-likelihood" in Page(text.read_text(encoding="utf-8")).text


def test_no_reported_run(tmp_path):
    folder = small(tmp_path, contenders=(), failures=True)
    with pytest.raises(DataError, match=r"no reported run has ended well \(2 failed, the first: TrainingError"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_text_metric_and_several_bases(tmp_path):
    folder = small(tmp_path, metric="chrf", bases=("a", "b"), seeds=(0, 1))
    report = gather(Results.load(folder))
    best = report.sections[0].main.lines[0]
    assert 50 < best.mean.value <= 100 and report.tables[0].scale == 1
    shown = Page(page(report, lambda test: {"reviews.jsonl:1": "word " * 100}))
    assert "Contents" in shown.text and "reviews on b" in shown.text and "Confusion" not in shown.text
    assert f"{best.mean.value:.1f} ({best.mean.interval[0]:.1f} to" in shown.text
    assert "%" not in re.findall(r"64 training rows: \S+ has the highest mean, ([^;]*)", shown.text)[0]


def test_confusion_agreement_and_examples(report):
    table = report.sections[0].main
    labels, matrices = confusions(table)
    assert labels == ["negative", "neutral", "positive"] and len(matrices) == len(table.lines)
    for matrix, line in zip(matrices, table.lines, strict=True):
        for (i, a), (j, b) in itertools.product(enumerate(labels), repeat=2):
            pairs = [pair for run in line.tested.predicted for pair in zip(line.tested.gold, run, strict=True)]
            assert matrix.counts[i][j] == pairs.count((a, b))
        right = sum(matrix.counts[i][i] for i in range(3))
        assert right / (60 * len(line.records)) == pytest.approx(line.mean.value)
    majority = next(matrix for matrix in matrices if matrix.name == "majority")
    assert majority.precision.count(None) == 2 and majority.recall.count(1.0) == 1
    shares = agreement(table)
    assert np.allclose(shares, shares.T) and np.allclose(shares.diagonal(), 1)
    votes = [line.answers for line in table.lines]
    assert shares[0, 5] == pytest.approx(np.mean([a == b for a, b in zip(votes[0], votes[5], strict=True)]))
    found = examples(table, {"reviews.jsonl:1": "x" * 500} | {f"reviews.jsonl:{i}": "y " * 500 for i in range(2, 61)})
    assert 0 < len(found) <= 12
    for example in found:
        assert (
            len({answer for name, answer, _ in example.answers if name not in ("majority", "zero-shot", "8-shot")}) > 1
        )
        assert len(example.text) == LETTERS and all(
            right == (answer == example.gold) for _, answer, right in example.answers
        )


def test_examples_of_tags_are_shown_as_they_are_answered(tmp_path):
    gold = [["O", "B-x", "I-x"], ["B-x", "O"], ["O"]]
    (tmp_path / "suite.json").write_text(json.dumps({"name": "made"}))
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "d.json").write_text(json.dumps({"where": ["t:1", "t:2", "t:3"], "gold": gold}))
    for name, answers in {"full": gold, "soft": [["O", "B-x", "O"], *gold[1:]]}.items():
        tested = Measured(metric="span_f1", value=0.5, interval=(0, 1), rows=3, digest="d", predicted=answers)
        place = Place(base="b", task="t", contender=name, size=8)
        write(tmp_path, Record(id=name, suite="made", stage="final", place=place, seed=0, tests={"t": tested}))
    (example,) = examples(gather(Results.load(tmp_path)).sections[0].main, None)
    assert example.gold == "O B-x I-x"
    assert sorted(example.answers) == [("full", "O B-x I-x", True), ("soft", "O B-x O", None)]


def test_too_many_labels_for_a_matrix(tmp_path):
    folder = small(tmp_path, rows=60, labels=tuple("abcdefghijklmnop"), contenders=("zero-shot", "full"))
    labels, matrices = confusions(gather(Results.load(folder)).sections[0].main)
    assert len(labels) > 12 and not matrices
    assert "labels: too many for matrices of confusion" in Page(page(gather(Results.load(folder)))).text


def test_front_against_all_pairs():
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = [tuple(point) for point in rng.integers(0, 6, (8, 2)).tolist()]
        found = front_of(points)
        for i, (cost, value) in enumerate(points):
            beaten = any(
                (c <= cost and v > value) or (c < cost and v == value) for j, (c, v) in enumerate(points) if j != i
            )
            if i in found:
                assert not beaten
            else:
                assert beaten or (cost, value) in [points[j] for j in found]  # of equal points one stands for all


def test_names_of_points_touch_neither_each_other_nor_the_points():
    charts = Charts()
    rng = np.random.default_rng(1)
    with charts.style():
        axes = charts.axes()
        axes.set_xlim(0, 10)
        axes.set_ylim(0, 10)
        marks = [(float(x), float(y), f"name {i}", "black") for i, (x, y) in enumerate(rng.uniform(2, 8, (14, 2)))]
        path = [(0.0, 1.0), (10.0, 1.0)]
        name_points(axes, marks, path)
        boxes = [text.get_window_extent() for text in axes.texts]
        dots = axes.transData.transform([mark[:2] for mark in marks])
    assert len(boxes) >= 10
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert not any(box.contains(*dot) for box in boxes for dot in dots)


def test_looks_are_the_same_for_a_contender_and_unlike_between_them():
    names = ["majority", *(f"m{i}" for i in range(12)), "full"]
    learned = {name: name != "majority" for name in names}
    looks = looks_of(names, {name: name[:1] for name in names}, learned, "full")
    assert looks["full"].color == 0 and looks["majority"].color is None
    assert len({(look.color, look.marker, look.dash) for look in looks.values()}) == len(names)
    assert len({looks[f"m{i}"].marker for i in range(12)}) == 1


def test_without_matplotlib(tmp_path, monkeypatch):
    folder = small(tmp_path, contenders=("majority", "full"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'softprompt\[bench\]'"):
        write_report(folder)


def test_no_answers_are_refused(tmp_path):
    folder = small(tmp_path, contenders=("full",))
    for record in read_all(folder).values():
        if record.tests:
            record.tests["reviews"] = Measured.model_validate(
                record.tests["reviews"].model_dump() | {"predicted": None}
            )
            write(folder, record)
    with pytest.raises(DataError, match="holds no answers of reviews"):
        write_report(folder)


def test_numbers_as_people_read_them():
    accuracy, chrf, mcc = metric_of("accuracy"), metric_of("chrf"), metric_of("mcc")
    assert numbers.points(0.9126, accuracy) == "91.3" and numbers.points(54.25, chrf) == "54.2"
    assert numbers.points(-0.0002, accuracy, True) == "0.0" and numbers.points(-0.012, accuracy, True) == "−1.2"
    assert numbers.points(0.012, accuracy, True) == "+1.2"
    assert [numbers.unit_of(metric).strip() for metric in (accuracy, chrf, mcc)] == ["%", "", ""]
    assert [numbers.count(value) for value in (None, 0, 999, 1000, 12_345, 134_515_008)] == [
        "–",
        "0",
        "999",
        "1.0 k",
        "12.3 k",
        "135 M",
    ]
    assert [numbers.size(value) for value in (0, 1023, 1536, 2**30)] == ["0 B", "1023 B", "1.5 KiB", "1.0 GiB"]
    assert [numbers.seconds(value) for value in (0.5, 3.21, 65, 600, 9000)] == [
        "0.50 s",
        "3.2 s",
        "65 s",
        "10.0 min",
        "2.5 h",
    ]
    assert [numbers.p_value(p) for p in (1e-5, 0.0312, 0.5)] == ["< 0.001", "0.031", "0.50"]
    assert numbers.rate(2e-5) == "2e−5" and numbers.rate(0.003) == "0.003"
