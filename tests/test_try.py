"""`softprompt try`: a cross-validation of all ways on a file's rows, what is recommended, what does not fit into the time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import tiny_rows
from models import tiny_model, tiny_tokenizer
from test_cli import cli, refused

from softprompt.benchmarks.compare import probe
from softprompt.benchmarks.compare.context import RunContext
from softprompt.benchmarks.compare.peers.tfidf import TfIdfSpec
from softprompt.benchmarks.compare.record import read_all
from softprompt.benchmarks.compare.report import write_report
from softprompt.benchmarks.compare.runs import Run, cells_of
from softprompt.benchmarks.compare.suite import SuiteSpec
from softprompt.benchmarks.ways.advice import about_labels, advice, recommended
from softprompt.benchmarks.ways.budget import Budget
from softprompt.benchmarks.ways.main import try_rows
from softprompt.benchmarks.ways.page import page_of
from softprompt.benchmarks.ways.suite import ways_of
from softprompt.benchmarks.ways.table import Curve, Difference, Line
from softprompt.config import parse
from softprompt.errors import ConfigError, DataError
from softprompt.run_reader import load_run

ROWS = 48


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file of rows with two labels, and a base and an encoder beside it."""
    root = tmp_path_factory.mktemp("try")
    for name, family, frame in (("base", "llama", ""), ("encoder", "distilbert", "masked")):
        tiny_model(family).save_pretrained(root / name)
        tiny_tokenizer(frame=frame).save_pretrained(root / name)
    rows = [row.values for part in tiny_rows(ROWS, 0, 0).values() for row in part]
    text = "".join(json.dumps({**row, "text": f"{row['text']} {place}"}) + "\n" for place, row in enumerate(rows))
    (root / "rows.jsonl").write_text(text, encoding="utf-8")
    return root


def suite_of(data, **changes) -> SuiteSpec:
    task = {
        "version": 1,
        "name": "tiny",
        "data": {"source": str(data / "rows.jsonl"), "split": {"train": 0.7, "dev": 0.15, "test": 0.15}},
        "template": {"input": "Text: {{ text }}", "cue": "\nIt is:"},
        "verbalizer": {"good": "good", "bad": "bad"},
    }
    held = {
        "name": "folds",
        "bases": [str(data / "base")],
        "tasks": [task],
        "draws": "folds",
        "seeds": [0, 1, 2],
        "search": {"trials": 1},
        "sizes": [32],
        "dev": 0.15,
        "test": ROWS,
        "without": ["lora", "full"],
        "contenders": ["tfidf", {"method": "probe", "sizes": [32, 16]}, "infix"],
        "reference": "probe",
    }
    return parse(SuiteSpec, {**held, **changes}, "suite")


def test_each_row_is_tested_once_and_never_learned_from(data):
    context, cells = RunContext(suite_of(data).cache), cells_of(suite_of(data))
    for name, size, dev in (
        ("majority", 32, 0),
        ("probe", 32, 0),
        ("probe", 16, 0),
        ("infix", 32, 8),
        ("8-shot", 8, 0),
    ):
        cell = next(one for one in cells if one.place.contender == name and one.place.size in (None, size))
        tested = []
        for seed in cell.seeds:
            rows = context.rows(Run(cell, "final", seed, None))
            parts = [{row.where for row in rows[part]} for part in ("train", "dev", "test")]
            assert [len(part) for part in parts] == [size - dev, dev, 16], name
            assert not parts[0] & parts[1] and not (parts[0] | parts[1]) & parts[2]
            assert abs(sum(row.values["label"] == "good" for row in rows["test"]) - 8) <= 1
            tested += [row.where for row in rows["test"]]
        assert len(set(tested)) == len(tested) == ROWS
    small, large = (
        next(one for one in cells if one.place.contender == "probe" and one.place.size == n) for n in (16, 32)
    )
    few, many = (context.rows(Run(cell, "final", 1, None))["train"] for cell in (small, large))
    assert {row.where for row in few} <= {row.where for row in many}


def test_folds_are_part_of_what_a_record_is_of(data):
    digests = {
        cell.settings for folds in ([0, 1], [0, 1, 2]) for cell in cells_of(suite_of(data, seeds=folds, sizes=[24]))
    }
    assert len(digests) == 2 * len(cells_of(suite_of(data, sizes=[24])))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": [1, 2]}, r"seeds: \[0, 1, …\]"),
        ({"seeds": [0]}, r"seeds: \[0, 1, …\]"),
        ({"contenders": ["probe", {"kind": "tfidf", "seeds": [0]}]}, r"seeds: \[0, 1, …\]"),
        ({"search": {"trials": 3}}, "search.trials"),
        ({"tests": ["movie-reviews"]}, "takes no tests"),
        ({"contenders": ["probe", {"kind": "tfidf", "bases": ["bas"]}]}, "no base 'bas'.*did you mean"),
    ],
)
def test_a_cross_validation_that_cannot_be_made_is_refused(data, changes, words):
    with pytest.raises(ConfigError, match=words):
        suite_of(data, **changes)


def test_what_a_run_costs_can_be_tried(data):
    suite = suite_of(data)
    cell = next(one for one in cells_of(suite) if one.place.contender == "infix")
    cost = probe.probe([cell], RunContext(suite.cache))[probe.key_of(cell)]
    assert not cost.problem and cost.step > 0 and probe.seconds(cell, cost) > 3 * cost.step


def test_more_labels_than_the_other_folds_have_are_refused(data):
    context, cell = RunContext(suite_of(data).cache), cells_of(suite_of(data, sizes=[40]))[-1]
    with pytest.raises(DataError, match="the other folds of fold 0 have 32"):
        context.rows(Run(cell, "final", 0, None))


@pytest.mark.parametrize(
    ("texts", "analyzer", "ngrams"),
    [
        (["good film", "a bad one"], "word", (1, 2)),
        (["这部电影很好看", "我 不喜欢这部电影的结尾而且太长了"], "char_wb", (1, 3)),
    ],
)
def test_tfidf_counts_characters_where_words_are_not_parted(texts, analyzer, ngrams):
    spec = TfIdfSpec().filled(texts)
    assert (spec.analyzer, spec.ngrams) == (analyzer, ngrams)
    assert TfIdfSpec(analyzer="word", ngrams=(1, 1)).filled(texts).ngrams == (1, 1)
    spec.pipeline().fit(texts, ["a", "b"])


@pytest.fixture(scope="module")
def tried(data):
    """All cheap ways and two steps of an infix, on tiny bases."""
    said: list[str] = []
    found = try_rows(
        data / "rows.jsonl",
        minutes=30,
        folder=data / "out",
        base=str(data / "base"),
        encoder=str(data / "encoder"),
        only=["majority", "tfidf", "probe", "zero-shot"],
        page=data / "page.html",
        notice=said.append,
    )
    return found, said


def test_all_ways_stand_in_one_table(tried, data):
    found, said = tried
    titles = [line.title for line in found.lines]
    assert sorted(titles) == sorted(
        ["majority", "TF-IDF + logistic regression", "probe on encoder", "probe on base", "zero-shot"]
    )
    assert found.rows == found.of == ROWS and "all of its 48 rows" in said[0]
    values = [line.value for line in found.lines]
    assert values == sorted(values, reverse=True) and found.lines[0].to_best is None
    for line in found.lines[1:]:
        assert line.to_best.value == pytest.approx(line.value - values[0])
        assert line.to_best.interval[0] < line.to_best.value < line.to_best.interval[1]
    assert all(sum(one.rows for one in line.tested.measured) == ROWS for line in found.lines)
    assert {curve.title: [point.labels for point in curve.points] for curve in found.curves} == {
        "TF-IDF + logistic regression": [8, 16, 32],
        "probe on encoder": [8, 16, 32],
        "probe on base": [8, 16, 32],
    }
    assert found.left_out == []
    tfidf = next(line for line in found.lines if line.way.contender == "tfidf")
    assert tfidf.loss is not None and tfidf.stored > 1000 and tfidf.labels == 32
    json.dumps(found.as_dict(), default=str)


def test_the_page_holds_all_and_needs_nothing(tried, data):
    found, _ = tried
    page = (data / "page.html").read_text(encoding="utf-8")
    assert page == page_of(found)
    for line in found.lines:
        assert line.title in page and f"{line.value:.3f}" in page
    assert (
        page.count("<svg") == 2 + len(found.curves)
        and "<script" not in page
        and "http" not in page.replace("http-equiv", "")
    )


def test_the_winners_run_file_is_one_that_trains(tried):
    found, _ = tried
    if found.chosen.way.contender == "tfidf":
        assert found.file is None and any("LogisticRegression" in line for line in found.code)
    else:
        run = load_run(found.file, [])
        assert run.base.name == found.chosen.way.base and found.code == []


def test_a_second_call_makes_no_run_again(tried, data):
    before = read_all(data / "out")
    found = try_rows(
        data / "rows.jsonl",
        minutes=0.001,
        folder=data / "out",
        base=str(data / "base"),
        encoder=str(data / "encoder"),
        only=["majority", "tfidf", "infix"],
    )
    after = read_all(data / "out")
    assert {name: record.when for name, record in after.items()} == {name: one.when for name, one in before.items()}
    assert found.left_out and found.left_out[0].startswith("infix prompt: nothing of it fit into the time")
    assert write_report(data / "out")[0].is_file()  # it is a results folder like any other


def test_a_run_begins_only_if_its_fellows_ended_in_time(data):
    suite = suite_of(data)
    cell = cells_of(suite)[0]
    first, second = (Run(cell, "final", seed, None) for seed in (0, 1))
    budget = Budget(ends=float("inf"), expected={cell.settings: 5.0})
    assert budget.allows(first, {}) and budget.seconds(cell, {}) == 5.0
    record = first.record()
    record.seconds_in_all = 7.0
    assert budget.seconds(cell, {record.id: record}) == 7.0
    late = Budget(ends=0.0)
    assert not late.allows(second, {record.id: record}) and late.late == {"majority": 7.0}


WAYS = ways_of("minilm", "smollm2")


def line(
    place: int, value: float, to_best: tuple[float, float, float] | None, folds: int = 3, labels: int = 200
) -> Line:
    found = None if to_best is None else Difference(to_best[0], to_best[1:])
    return Line(
        WAYS[place], None, labels, folds, value, (value - 0.02, value + 0.02), 0.3, 1.0 + 9 * place, 1.0, 10.0, found
    )


@pytest.mark.parametrize(
    ("lines", "expected", "words"),
    [
        ([line(6, 0.98, None), line(2, 0.975, (-0.005, -0.02, 0.01))], 2, "infix prompt as the best has 0.980"),
        ([line(6, 0.98, None), line(2, 0.975, (-0.005, -0.009, -0.001))], 6, "Take infix prompt"),
        ([line(6, 0.98, None), line(2, 0.96, (-0.02, -0.05, 0.01))], 6, "nothing simpler is as good"),
        ([line(2, 0.98, None), line(6, 0.979, (-0.001, -0.02, 0.02))], 2, "Take probe on MiniLM"),
        ([line(2, 0.98, None), line(6, 0.99, (0.01, -0.02, 0.04), folds=2)], 2, "ahead by"),
        ([line(1, 0.6, None), line(0, 0.595, (-0.005, -0.05, 0.04))], 0, "Nothing is certainly better"),
    ],
)
def test_the_simplest_way_that_is_as_good_as_the_best_is_recommended(lines, expected, words):
    chosen = recommended(lines, WAYS, 3)
    assert chosen.way == WAYS[expected]
    assert words in " ".join(advice(lines, chosen, 3))


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (
            (0.04, 0.01, 0.07),
            "from 100 to 200 labels probe on MiniLM gained +4.0 points [+1.0, +7.0]: more labels would pay",
        ),
        ((0.0, -0.02, 0.01), "hardly pay any more"),
        ((0.02, -0.03, 0.06), "these rows cannot tell"),
    ],
)
def test_the_last_doubling_says_whether_more_labels_would_pay(gain, words):
    points = [line(2, 0.9, None, labels=100), line(2, 0.94, None, labels=200)]
    other = Curve([line(1, 0.7, None, labels=100), line(1, 0.99, None, labels=200)], Difference(0.29, (0.2, 0.3)))
    curve = Curve(points, Difference(gain[0], gain[1:]))
    said = about_labels([other, curve], points[-1])
    assert words.lower() in said.lower()
    assert about_labels([], points[-1]) is None


def test_the_command(data, tmp_path):
    outputs = ("--out", "out", "--html", "page.html", "--json", "found.json")
    ways = ("--only", "tfidf", "--only", "majority")
    done = cli("try", data / "rows.jsonl", *ways, "--minutes", "9", *outputs, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "TF-IDF + logistic regression" in done.stdout and "Take TF-IDF" in done.stdout
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert [way["name"] for way in found["ways"]] == ["TF-IDF + logistic regression", "majority"]
    assert found["ways"][0]["folds"] == 3 and np.isfinite(found["ways"][0]["loss"])
    assert (tmp_path / "page.html").is_file()


def test_rows_without_labels_and_unknown_ways_are_refused(data, tmp_path):
    rows = ({"question": f"q {k}", "context": f"c {k}", "answers": [f"c {k}"]} for k in range(20))
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused(cli("try", "notes.jsonl", cwd=tmp_path), "softprompt new", "span")
    refused(cli("try", data / "rows.jsonl", "--only", "probee", cwd=tmp_path), "no way 'probee'", "did you mean")
    told = refused(cli("try", data / "rows.jsonl", "--only", "bogus", cwd=tmp_path), "no way 'bogus' (known: ")
    assert told.count("tfidf") == 1
