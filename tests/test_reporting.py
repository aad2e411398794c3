"""The report of an evaluation: its numbers against those of other code, its three forms, and every type of task."""

from __future__ import annotations

import io
import itertools
import json
import math
import random
import re
from collections import Counter

import pytest
from helpers import tiny_rows, tiny_task
from rich.console import Console
from test_cli import cli, refused, work  # noqa: F401 - a fixture

from softprompt.answers import Outcome, summarize
from softprompt.data import Row
from softprompt.data.writers import plain
from softprompt.metrics.spans import spans_of
from softprompt.reporting import page, report_of, tables
from softprompt.reporting.curves import answered, calibration, detection
from softprompt.reporting.labels import label_scores, span_scores
from softprompt.reporting.words import headline
from softprompt.tasks import Task

TEMPLATE = {"input": "{{ text }}", "cue": ":"}


def chosen(labels, count=60, seed=0, rows=None):
    """Outcomes of labels with made-up probabilities, about two of three right."""
    rng, found = random.Random(seed), []
    for place in range(count):
        options = labels if rows is None else rows[place]
        weights = [rng.random() for _ in options]
        scores = {name: math.log(one / sum(weights)) for name, one in zip(options, weights, strict=True)}
        best = max(scores, key=scores.__getitem__)
        gold = best if rng.random() < 0.6 else rng.choice(options)
        found.append(Outcome(f"/home/anna/rows.csv:{place + 1}", gold, best, scores, -scores[gold]))
    return found


def rows_of(outcomes, **values):
    return [Row({"text": f"text {p}", "label": one.gold, **values}, one.where) for p, one in enumerate(outcomes)]


def report(task, outcomes, rows=None):
    return report_of("a title", task, summarize(task.spec.metric, outcomes), rows or rows_of(outcomes))


def shown(found) -> str:
    file = io.StringIO()
    for piece in tables(found):
        Console(file=file, width=200).print(piece)
    return file.getvalue()


def test_labels_are_counted():
    outcomes = chosen(["good", "bad"])
    found = report(tiny_task(), outcomes)
    pairs = Counter((one.gold, one.predicted) for one in outcomes)
    assert found.confusion.counts == [[pairs[right, given] for given in ("good", "bad")] for right in ("good", "bad")]
    good = found.labels[0]
    hits, right, given = pairs["good", "good"], good.right, good.given
    assert (right, given) == (hits + pairs["good", "bad"], hits + pairs["bad", "good"])
    assert good.precision.value == pytest.approx(hits / given) and good.recall.value == pytest.approx(hits / right)
    assert good.f1.value == pytest.approx(2 * hits / (right + given))
    for score in (good.precision, good.recall, good.f1):
        assert 0 <= score.interval[0] < score.value < score.interval[1] <= 1
    assert found.floor[0] == pytest.approx(max(good.right, 60 - good.right) / 60)
    losses = [one.loss for one in found.worst]
    assert losses == sorted(losses, reverse=True) and losses[0] == max(one.nll for one in outcomes)
    assert found.worst[0].where.startswith("rows.csv:")  # a report is shown to others: no folder of this machine


def test_intervals_of_f1_are_those_of_resampled_rows_but_where_there_is_no_mistake():
    import numpy as np
    from scipy import stats

    rng = np.random.default_rng(1)
    gold = rng.random(300) < 0.3
    given = np.where(rng.random(300) < 0.8, gold, ~gold)
    names = ["no", "yes"]
    (_, found) = label_scores(names, [names[int(g)] for g in gold], [names[int(g)] for g in given])

    def f1(a, b, axis=-1):
        return 2 * (a & b).sum(axis) / (a.sum(axis) + b.sum(axis))

    whole = stats.bootstrap((gold, given), f1, paired=True, n_resamples=4000, method="percentile", rng=0)
    low, high = whole.confidence_interval
    assert found.f1.interval == pytest.approx((low, high), abs=0.02)
    perfect = label_scores(names, names * 6, names * 6)[0].f1
    assert perfect.value == 1 == pytest.approx(perfect.interval[1]) and perfect.interval[0] < 0.8


def test_labels_that_nobody_has_or_gets():
    never, unused = label_scores(["a", "b", "c"], ["a", "a"], ["a", "b"])[1:]
    assert (never.right, never.given, never.recall) == (0, 1, None) and never.precision.value == 0
    assert never.f1.value == 0 == pytest.approx(never.f1.interval[0])
    assert (unused.precision, unused.recall, unused.f1) == (None, None, None)


def test_many_labels_show_the_largest_confusions_only():
    labels = [f"label {place}" for place in range(50)]
    task = Task.load({"name": "many", "template": TEMPLATE, "verbalizer": labels})
    outcomes = chosen(labels, 200)
    outcomes += [Outcome("x:1", labels[3], labels[4], outcomes[0].scores, 1.0)] * 9
    found = report(task, outcomes)
    assert found.confusion.counts is None and found.confusion.largest[0][:2] == (labels[3], labels[4])
    assert len(found.labels) == 50 and "and 10 labels more" in shown(found) and "10 labels more" in page(found)
    assert found.detections == []


def test_thresholds_and_calibration():
    probabilities = [0.05 + place / 100 for place in range(95)]
    hits = [value > 0.5 for value in probabilities]
    curve = answered(probabilities, hits)
    assert curve[0].share == 1 and curve[-1].rows == 5 and curve[-1].accuracy.value == 1
    pairs = itertools.pairwise(curve)
    assert all(more.threshold < fewer.threshold and more.rows > fewer.rows for more, fewer in pairs)
    for one in curve:
        assert one.rows == sum(value >= one.threshold for value in probabilities)
    assert answered([0.9] * 7, [True] * 7)[0].rows == 7 and len(answered([0.9] * 7, [True] * 7)) == 1

    rng = random.Random(0)
    said = [rng.random() for _ in range(4000)]
    honest = calibration(said, [rng.random() < value for value in said])
    assert honest.error < 0.03 and sum(one.rows for one in honest.bins) == 4000
    assert calibration([0.9] * 10, [True] * 5 + [False] * 5).error == pytest.approx(0.4)
    assert calibration([1.0], [True]).bins[0].high == 1


def test_a_label_is_found_by_a_threshold():
    gold, values = ["spam"] * 4 + ["ham"] * 6, [0.9, 0.8, 0.7, 0.3, 0.4, 0.2, 0.2, 0.1, 0.1, 0.1]
    found = detection("spam", gold, values)
    assert found.best.threshold == pytest.approx(0.3) and found.best.recall == 1
    assert found.best.precision == pytest.approx(0.8)
    assert detection("none", gold, values) is None


def test_options_of_their_own_have_no_table_of_labels():
    options = [[f"option {place} {letter}" for letter in "ab"] for place in range(20)]
    outcomes = chosen(None, 20, rows=options)
    task = Task.load({"name": "c", "type": "choice", "template": TEMPLATE})
    rows = [
        Row({"text": "q", "choices": own, "answer": one.gold}, one.where)
        for own, one in zip(options, outcomes, strict=True)
    ]
    found = report(task, outcomes, rows)
    assert found.labels == [] and found.confusion is None and found.detections == []
    assert found.answered and found.calibration and found.floor == (0.5, "guessing")
    assert "Confusion" not in page(found) and "threshold" in shown(found)


def test_written_answers_have_a_distribution():
    task = Task.load({"name": "g", "type": "generation", "template": TEMPLATE, "metric": "chrf"})
    said = ["a cat", "a car", "", "two dogs"]
    outcomes = [Outcome(f"r:{place}", ["a cat", "cats"], text, nll=2.0, weight=2) for place, text in enumerate(said)]
    rows = [Row({"text": f"t{p}", "answer": one.gold}, one.where) for p, one in enumerate(outcomes)]
    found = report(task, outcomes, rows)
    assert found.distribution.perfect == 0.25 and found.distribution.quantiles[100] == pytest.approx(100)
    assert [one.where for one in found.worst][-1] == "r:0" and found.worst[0].score < 15 and found.worst[0].loss == 1
    assert found.labels == [] and found.answered == [] and "chrf of each row" in shown(found)
    assert "Probabilities" not in page(found)


def test_tags_are_scored_by_the_labels_of_their_spans():
    seqeval = pytest.importorskip("seqeval.metrics")
    rng, tags = random.Random(0), ["O", "B-name", "I-name", "B-town", "I-town"]
    gold = [[rng.choice(tags) for _ in range(6)] for _ in range(40)]
    given = [[tag if rng.random() < 0.8 else rng.choice(tags) for tag in row] for row in gold]
    theirs = seqeval.classification_report(gold, given, output_dict=True)
    for one in span_scores(gold, given):
        assert one.precision.value == pytest.approx(theirs[one.label]["precision"])
        assert one.recall.value == pytest.approx(theirs[one.label]["recall"])
        assert one.f1.interval[0] < theirs[one.label]["f1-score"] < one.f1.interval[1]
        assert one.right == theirs[one.label]["support"]

    task = Task.load({"name": "n", "type": "tagging", "tags": tags, "template": {"input": "{{ text }}"}})
    rows = [Row({"tokens": list("abcdef"), "tags": row}, f"r:{p}") for p, row in enumerate(gold)]
    outcomes = [Outcome(f"r:{p}", *both, nll=1.0) for p, both in enumerate(zip(gold, given, strict=True))]
    found = report(task, outcomes, rows)
    assert {one.label for one in found.labels} == {"name", "town"} and "spans" in shown(found)
    assert found.worst[0].right != found.worst[0].given and re.search(r"\w \((name|town)\)", found.worst[0].right)
    assert found.distribution.perfect == sum(spans_of(a) == spans_of(b) for a, b in zip(gold, given, strict=True)) / 40


def test_the_page_needs_nothing_and_runs_nothing():
    rows = rows_of(outcomes := chosen(["good", "bad"]))
    for row in rows:
        row.values["text"] = "<script>alert(1)</script> & " + "long " * 100
    found = report(tiny_task(), outcomes, rows)
    html = page(found)
    assert "<script" not in html and "&lt;script&gt;" in html
    assert not re.search(r"""(src|href|url)\s*[=(]""", html) and "@media (prefers-color-scheme:dark)" in html
    assert html.count("<svg") == 3 + len(found.detections) and html == page(found)
    assert all(len(one.text) <= 200 and one.text.endswith("…") for one in found.worst)
    assert headline(found) in html and "nan" not in html.lower().replace("finance", "")
    assert json.loads(json.dumps(plain(found.as_dict()), allow_nan=False))["estimate"]["rows"] == 60


def test_the_command_shows_it_in_three_forms(work):  # noqa: F811
    done = cli("eval", "first", "--report", cwd=work)
    assert done.returncode == 0, done.stderr
    for words in ("by label", "confusion", "worst rows", "expected calibration error", "accuracy"):
        assert words in done.stdout
    done = cli("eval", "first", "--report", "page.html", "--json", cwd=work)
    inside = json.loads(done.stdout)["report"]
    assert "<!doctype html>" in (work / "page.html").read_text("utf-8")
    done = cli("eval", "first", "--report", "more.json", cwd=work)
    assert "report: more.json" in done.stdout
    assert (
        json.loads((work / "more.json").read_text()) == inside and inside["title"] == "tiny: infix on base, test rows"
    )
    refused(cli("eval", "first", "--report=page.pdf", cwd=work), "page.pdf", ".html or .json")


def test_one_row_is_enough():
    rows = tiny_rows()["test"][:1]
    outcomes = [Outcome(rows[0].where, "good", "good", {"good": -0.1, "bad": -2.3}, 0.1)]
    found = report(tiny_task(), outcomes, rows)
    assert page(found) and shown(found) and len(found.worst) == 1
