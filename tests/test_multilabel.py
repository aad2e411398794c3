"""Rows that may have several labels: loss and gradients as by hand, thresholds, metrics, bad rows, the command line."""

from __future__ import annotations

import json
import random
import re
import shlex
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SLOW_RUN, close, killed_at
from models import tiny_base
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import MultiLabelBinarizer
from test_bidirectional import encoder
from test_cli import cli
from test_training import events, folder_bytes

from softprompt.answers import Evaluation, Outcome, summarize
from softprompt.answers.thresholds import DRAWN, FEWEST, best_thresholds, threshold
from softprompt.artifact import load
from softprompt.data import Row
from softprompt.doctor import Case, examine
from softprompt.errors import ArtifactError, ConfigError, DataError
from softprompt.methods import make_method
from softprompt.methods.regression import Rows, fit_labels
from softprompt.metrics import estimate, majority, measures, row_scores
from softprompt.reporting import report_of
from softprompt.runtime import Runtime
from softprompt.tasks import Task
from softprompt.training import prepare, train
from softprompt.training.distil import distil

LABELS = ["sun", "rain", "mud", "hope"]
TASK = {
    "name": "several",
    "type": "multilabel",
    "template": {"instruction": "Which? ", "input": "Text: {{ text }}", "cue": "\nLabels:"},
    "labels": LABELS,
}
BASES = {"encoder": lambda: encoder("bert"), "masked": lambda: tiny_base("bert"), "causal": lambda: tiny_base("llama")}
SEQ2SEQ = {"seq2seq": lambda: tiny_base("bart")}


def several_rows(count=48, seed=0):
    """Texts that name their labels, some of them none."""
    rng = random.Random(seed)
    rows = []
    for place in range(count):
        own = [label for label in LABELS if rng.random() < 0.4]
        rng.shuffle(own)
        rows.append(Row({"text": " ".join([*own, f"no. {place}"]), "labels": own}, f"s:{place}"))
    return {"train": rows[: count // 2], "dev": rows[count // 2 :], "test": rows[count // 2 :]}


def ready_for(base, method, task=TASK, rows=None):
    return prepare(base, Task.load(task), make_method(method), rows=rows or several_rows(), seed=0)


def by_hand(ready, row):
    """Logits [K] of a row: one plain forward of the whole of it, and the head on the state that it reads."""
    learned, base = ready.method.learned(), ready.base
    live = learned.base or base
    head, cue, tail = ready.bound.prefix_ids, ready.bound.cue, ready.bound.tail
    ids = torch.tensor([*head, *row.text, *cue, *tail])
    front = [learned.segments["prompt"]] if "prompt" in learned.segments else []
    given = torch.cat([*front, live.embed(ids)])[None]
    states = live.model(inputs_embeds=given, output_hidden_states=True).hidden_states[-1][0]
    if base.bidirectional:
        return ready.method.head(states.mean(0))
    return ready.method.head(states[-1])


@pytest.mark.parametrize("kind", [*BASES])
@pytest.mark.parametrize("method", ["soft", "lora", "full", "hard"])
def test_loss_and_gradients_are_those_of_a_plain_forward_of_each_row(kind, method):
    """Σ −log σ(±logit), written out; the weights of rows multiply it."""
    ready = ready_for(BASES[kind](), method)
    rows = ready.splits["train"][:5]
    rows = [*rows[:3], *(type(row)(**{**vars(row), "weight": 2.5}) for row in rows[3:])]
    ready.engine.encode(rows)
    parameters = ready.method.parameters()
    with torch.no_grad():
        for parameter in parameters:  # LoRA begins at zero, where half of it has no gradient
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.02)
    total, count = ready.form.loss(ready.engine, rows, ready.method.learned())
    assert count == len(rows) * len(LABELS) == sum(map(ready.form.loss_weight, rows))
    mine = torch.autograd.grad(total / count, parameters, allow_unused=True)
    plain = 0.0
    for row in rows:
        for label, logit in zip(LABELS, by_hand(ready, row), strict=True):
            p = 1 / (1 + torch.exp(-logit))
            plain = plain - row.weight * torch.log(p if label in row.values["labels"] else 1 - p)
    close(total, plain)
    theirs = torch.autograd.grad(plain / count, parameters, allow_unused=True)
    for own, other in zip(mine, theirs, strict=True):
        assert (own is None) == (other is None) or not bool((own if other is None else other).any())
        if own is not None and other is not None:
            close(own, other)


@pytest.mark.parametrize("kind", [*BASES, *SEQ2SEQ])
@pytest.mark.parametrize("method", ["prefix", "infix", "soft", "lora", "probe"])
def test_every_method_trains_and_answers(kind, method, tmp_path):
    """The labels are learned above the best constant answer by who can; each artifact answers as its run did."""
    base = {**BASES, **SEQ2SEQ}[kind]()
    result = train(base, Task.load(TASK), method, tmp_path, rows=several_rows(), train={"epochs": 2}, check=True)
    runtime = Runtime(base)
    runtime.add("it", tmp_path)
    asked = several_rows()["dev"]
    told = runtime.predict([{"text": row.values["text"]} for row in asked])
    for own, outcome in zip(told, result.metrics["dev"].outcomes, strict=True):
        assert own.label == outcome.predicted == own.as_dict()["labels"]
        assert list(own.probabilities) == LABELS and own.as_dict()["probabilities"] == own.probabilities
        for label, score in outcome.scores.items():
            assert own.probabilities[label] == pytest.approx(np.exp(score), abs=1e-5)
    held = load(tmp_path / "artifact").manifest
    assert set(held.task["thresholds"]) == {*LABELS} and held.metrics["dev"].metric == "micro_f1"


def test_an_artifact_decides_by_its_own_thresholds_beside_others(tmp_path):
    """Rows of two artifacts go through a causal base in one batch; each has its head and its thresholds."""
    base = tiny_base("llama")
    always = {**TASK, "thresholds": 0.0001}
    never = {**TASK, "thresholds": dict.fromkeys(LABELS, 0.9999)}
    runtime = Runtime(base)
    for name, task in (("always", always), ("never", never)):
        train(base, Task.load(task), "infix", tmp_path / name, rows=several_rows(), train={"epochs": 1}, seed=len(name))
        runtime.add(name, tmp_path / name)
    rows = [{"text": f"text {place}", "artifact": ("always", "never")[place % 2]} for place in range(6)]
    together = runtime.predict(rows)
    assert [one.label for one in together] == [LABELS, []] * 3
    for row, one in zip(rows, together, strict=True):
        alone = runtime.predict([row])[0]
        assert list(alone.probabilities.values()) == pytest.approx(list(one.probabilities.values()), abs=1e-5)
    assert load(tmp_path / "always/artifact").manifest.task["thresholds"] == 0.0001


def test_a_run_that_is_called_again_is_the_same_and_adds_its_test(tmp_path):
    base, rows = tiny_base("llama"), several_rows()
    first = train(base, Task.load(TASK), "infix", tmp_path, rows=rows, train={"epochs": 2})
    digest = load(tmp_path / "artifact").digest
    again = train(base, Task.load(TASK), "infix", tmp_path, rows=rows, train={"epochs": 2})
    assert load(tmp_path / "artifact").digest == digest
    assert again.prepared.task.spec.thresholds == first.prepared.task.spec.thresholds
    tested = train(base, Task.load(TASK), "infix", tmp_path, rows=rows, train={"epochs": 2}, test=True)
    # dev and test hold the same rows here, so the thresholds of the artifact give both the same value
    assert tested.metrics["test"].estimate.value == first.metrics["dev"].estimate.value
    assert load(tmp_path / "artifact").manifest.task["thresholds"] == first.prepared.task.spec.thresholds


def test_without_dev_rows_and_for_whole_sets_a_label_is_given_from_one_half_on():
    base, rows = tiny_base("llama"), several_rows()
    bare = train(base, Task.load(TASK), "infix", rows={"train": rows["train"]}, train={"epochs": 1})
    assert bare.as_artifact().manifest.task.get("thresholds") is None
    assert bare.prepared.task.thresholds == [0.5] * len(LABELS)
    whole = train(base, Task.load({**TASK, "metric": "subset_accuracy"}), "infix", rows=rows, train={"epochs": 1})
    assert whole.prepared.task.spec.thresholds == dict.fromkeys(LABELS, 0.5)


def test_dev_answers_are_those_of_the_chosen_thresholds():
    """Every threshold is the one of the dev rows' own probabilities, and the metric is of what it decides."""
    result = train(tiny_base("llama"), Task.load(TASK), "infix", rows=several_rows(), train={"epochs": 3})
    outcomes, task = result.metrics["dev"].outcomes, result.prepared.task
    likely = np.array([[np.exp(one.scores[label]) for label in LABELS] for one in outcomes])
    right = np.array([[label in one.gold for label in LABELS] for one in outcomes])
    assert task.thresholds == best_thresholds(likely, right)
    given = likely >= np.array(task.thresholds)
    assert [one.predicted for one in outcomes] == [
        [label for label, mark in zip(LABELS, row, strict=True) if mark] for row in given
    ]
    assert result.metrics["dev"].estimate.value == pytest.approx(f1_score(right, given, average="micro"))


SETTINGS = {"epochs": 4, "batch_size": 4, "lr": 0.02, "eval_every": 5, "patience": 50}
SCRIPT = f"""{SLOW_RUN}
from models import tiny_base
from test_multilabel import SETTINGS, TASK, several_rows
from softprompt.tasks import Task

train(tiny_base(), Task.load(TASK), "infix", {{out!r}}, train=SETTINGS, rows=several_rows(), progress=slow)
"""


@pytest.mark.full  # runs that are killed and go on are in the default run with other tasks
def test_a_killed_run_goes_on_to_the_same_head_and_thresholds(tmp_path, forks):
    base, rows = tiny_base("llama"), several_rows()
    whole = train(base, Task.load(TASK), "infix", tmp_path / "whole", train=SETTINGS, rows=rows)
    script = SCRIPT.format(tests=str(Path(__file__).parent), out=str(tmp_path / "killed"))
    for moment in (4, 13):
        assert killed_at(script, moment, tmp_path / "killed" / "checkpoint.pt")
    assert not (tmp_path / "killed" / "artifact").exists()
    done = train(base, Task.load(TASK), "infix", tmp_path / "killed", train=SETTINGS, rows=rows)
    assert folder_bytes(whole.artifact) == folder_bytes(done.artifact)
    assert done.prepared.task.spec.thresholds == whole.prepared.task.spec.thresholds != dict.fromkeys(LABELS, 0.5)
    assert done.metrics["dev"].estimate == whole.metrics["dev"].estimate
    told = [events(tmp_path / name) for name in ("whole", "killed")]
    steps = [[(event["step"], event["loss"]) for event in one if event["event"] == "step"] for one in told]
    assert steps[0] == steps[1] and [step for step, _ in steps[0]] == list(range(1, 25))
    assert sum(event["event"] == "resumed" for event in told[1]) >= 1


# Thresholds


def test_a_threshold_is_that_of_the_best_f1_drawn_towards_one_half():
    rng = np.random.default_rng(0)
    likely = rng.random(60) ** 3
    right = rng.random(60) < likely * 1.5
    count = int(right.sum())

    def value(at):
        return f1_score(right, likely >= at, zero_division=0)

    edges = np.sort(np.append(likely, 0.0))
    middles = (edges[1:] + edges[:-1]) / 2
    best = max(map(value, middles))
    odds = np.log(threshold(likely, right) / (1 - threshold(likely, right))) * (count + DRAWN) / count
    undrawn = 1 / (1 + np.exp(-odds))
    assert count >= FEWEST and value(0.5) < best == pytest.approx(value(undrawn))


def test_few_rows_and_rows_apart_keep_one_half():
    few = np.arange(20) < FEWEST - 1
    assert threshold(np.where(few, 0.2, 0.1), few) == 0.5
    enough = np.arange(20) < 6
    assert threshold(np.where(enough, 0.9, 0.1), enough) == 0.5  # one half is among the best
    # 6 rows at .2 above all others at .1: the middle, .15, drawn by two rows
    odds = np.log(0.15 / 0.85) * 6 / 8
    assert threshold(np.where(enough, 0.2, 0.1), enough) == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-4)
    assert threshold(np.full(20, 0.3), enough) < 0.3  # all or none: F1 of all is better than 0
    assert threshold(np.full(9, 0.3), np.ones(9, bool)) < 0.3


# Metrics


def sets(rows=60, seed=0):
    rng = random.Random(seed)
    gold = [[label for label in "abcde" if rng.random() < 0.3] for _ in range(rows)]
    given = [[label for label in "abcde" if rng.random() < (0.8 if label in row else 0.1)] for row in gold]
    return gold, [*given[:-1], ["z"]]


def test_metrics_are_those_of_scikit_learn():
    gold, given = sets()
    marks = MultiLabelBinarizer().fit([*gold, *given])
    right, told = marks.transform(gold), marks.transform(given)
    assert estimate("micro_f1", gold, given).value == pytest.approx(f1_score(right, told, average="micro"))
    macro = f1_score(right, told, average="macro", zero_division=np.nan)
    assert estimate("macro_f1_sets", gold, given).value == pytest.approx(macro)
    whole = estimate("subset_accuracy", gold, given)
    assert whole.value == accuracy_score(right, told)
    hits = [sorted(a) == sorted(b) for a, b in zip(gold, given, strict=True)]
    assert whole.interval == estimate("accuracy", [True] * len(hits), hits).interval
    for metric in ("micro_f1", "macro_f1_sets", "subset_accuracy"):
        found = estimate(metric, gold, given)
        assert found.interval[0] < found.value < found.interval[1]
        assert found == estimate(metric, gold, [row[::-1] for row in given])  # the order says nothing
        assert row_scores(metric, gold, given).mean() == pytest.approx(found.value)


def test_a_bootstrap_of_whole_rows_gives_the_interval():
    gold, given = sets(30)
    rng = np.random.default_rng(1)
    draws = [rng.integers(30, size=30) for _ in range(400)]
    values = [estimate("micro_f1", [gold[i] for i in own], [given[i] for i in own]).value for own in draws[:100]]
    low, high = np.percentile(values, [2.5, 97.5])
    found = estimate("micro_f1", gold, given)
    assert found.interval == pytest.approx((low, high), abs=0.05)


def test_empty_sets_are_answers_like_others():
    assert estimate("micro_f1", [[], []], [[], []]).value == 0.0  # there is nothing to find
    assert estimate("macro_f1_sets", [[], []], [[], []]).value == 0.0
    assert estimate("subset_accuracy", [[], ["a"]], [[], []]).value == 0.5


def test_the_best_constant_set_is_what_an_evaluation_is_compared_with(monkeypatch):
    monkeypatch.setattr(measures, "RESAMPLES", 9)  # intervals play no part
    gold, _ = sets()
    labels = sorted({label for row in gold for label in row})
    every = [[label for k, label in enumerate(labels) if mask >> k & 1] for mask in range(2 ** len(labels))]
    for metric in ("micro_f1", "macro_f1_sets", "subset_accuracy"):
        best = max(estimate(metric, gold, [own] * len(gold)).value for own in every)
        assert majority(metric, gold) == pytest.approx(best)
    assert majority("micro_f1", [[], []]) == majority("macro_f1_sets", [[]]) == 0.0


# The probe


def test_a_probe_is_a_logistic_regression_a_label():
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(40, 6)), np.ones(40)
    gold = np.stack([features[:, 0] > 0.3, features[:, 1] + features[:, 2] > 0, np.zeros(40), np.ones(40)], 1).astype(
        int
    )
    weight, bias = fit_labels((0.7,), Rows(features, gold, weights), 30, 0)
    for label in (0, 1):
        plain = LogisticRegression(C=0.7, max_iter=2000).fit(features[:30], gold[:30, label])
        assert weight[label] == pytest.approx(plain.coef_[0]) and bias[label] == pytest.approx(plain.intercept_[0])
    # never or always there: its log-odds, with half a row more on each side
    assert not weight[2:].any() and bias[2:] == pytest.approx([np.log(0.5 / 30.5), np.log(30.5 / 0.5)])
    several = fit_labels((0.01, 0.7, 10.0), Rows(features, gold, weights), 30, 0)
    assert any(
        np.allclose(several[0], fit_labels((c,), Rows(features, gold, weights), 30, 0)[0]) for c in (0.01, 0.7, 10)
    )


# Rows


def task_of(**changes):
    return Task.load({**TASK, **changes})


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ({"labels": ["rain", "sun"]}, ["sun", "rain"]),
        ({"labels": []}, []),
        ({"labels": ""}, []),
        ({"labels": " rain ;sun; "}, ["sun", "rain"]),
        ({"labels": np.array(["mud"])}, ["mud"]),
        ({"sun": 1, "rain": "0", "mud": True, "hope": "false"}, ["sun", "mud"]),
        ({"sun": 0.0, "rain": 0, "mud": False, "hope": np.int64(0)}, []),
        ({"labels": ["hope"], "sun": 1, "rain": 0, "mud": 1, "hope": 0}, ["hope"]),
    ],
)
def test_what_rows_may_say(values, labels):
    task = task_of()
    row = {"text": "a", **values}
    assert task.check_row(row) is None and task.gold(row) == labels and not task.unlabelled(row)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"labels": ["sun", "snow"]}, "label 'snow' is none that task.labels lists"),
        ({"labels": "sun;sun"}, "label 'sun' stands there twice; name it once"),
        ({"labels": 3}, "labels is 3; expected a list of labels"),
        ({"labels": {"sun": 1}}, "labels is an object; expected a list of labels"),
        ({"labels": ["sun", None]}, "labels[1] is null; expected the name of a label"),
        ({"labels": ["sun", " "]}, "labels[1] is ' '; expected the name of a label"),
        ({"labels": None}, "labels is null; expected a list of labels"),
        ({"label": ["sun"]}, "missing field 'labels', did you mean 'label'"),
        ({"sun": 1, "rain": 0}, "missing field 'labels', or a column for each label (there is none for 'mud')"),
        (
            {"sun": 2, "rain": 0, "mud": 1, "hope": 0},
            "column 'sun' is 2; expected 1 where the row has the label, else 0",
        ),
        ({"sun": None, "rain": 0, "mud": 1, "hope": 0}, "column 'sun' is null; expected 1"),
    ],
)
def test_what_rows_may_not_say(values, told):
    task = task_of()
    problem = task.check_row({"text": "a", **values})
    assert problem is not None and told.split(", did")[0] in problem and "\n" not in problem
    assert task.gold({"text": "a", **values}) is None


def test_rows_without_labels_are_told_from_rows_that_have_none():
    task = task_of()
    assert all(map(task.unlabelled, ({"text": "a"}, {"labels": None}, {"labels": float("nan")})))
    assert task.unlabelled(dict.fromkeys(LABELS)) and not task.unlabelled({**dict.fromkeys(LABELS), "sun": 0})


def test_a_label_that_the_template_reads_has_no_column_of_its_own():
    task = task_of(labels=["text", "other"])
    assert task.answer_fields == ("labels",)
    assert "missing field 'labels'" in task.check_row({"text": "1", "other": 0})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"labels": ["a", "a"]}, "'a' stands there twice"),
        ({"labels": ["a", ""]}, "labels holds an empty one"),
        ({"thresholds": {"snow": 0.4}}, "thresholds names 'snow', which labels does not list"),
        ({"thresholds": 1.0}, "thresholds"),
        ({"metric": "accuracy"}, "metric 'accuracy' does not fit type 'multilabel'"),
        ({"metric": "macro_f1"}, "metric: is macro_f1, which is for one label a row; write macro_f1_sets"),
    ],
)
def test_settings_that_are_refused(changes, told):
    with pytest.raises(ConfigError) as error:
        task_of(**changes)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_labels_that_no_training_row_has_are_told():
    rows = several_rows()
    ready = ready_for(tiny_base("llama"), "infix", {**TASK, "labels": [*LABELS, "snow"]}, rows)
    told = {finding.what for finding in examine(Case(ready, ready.splits["train"][:4]))}
    assert "train: no row has the label 'snow'" in told
    assert "a classifier decides each label, so none has words" in told


def test_test_rows_have_as_many_labels_as_training_rows(tmp_path):
    """Rows whose whole set stands once are dealt out, too; each label is, in about its share."""
    rng = random.Random(1)
    names = [f"genre{k}" for k in range(10)]
    sets = [sorted(rng.sample(names, rng.choices((1, 2, 3, 4), (3, 4, 2, 1))[0])) for _ in range(400)]
    lines = [json.dumps({"text": f"film {k}", "labels": own}) for k, own in enumerate(sets)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    data = {"source": str(tmp_path / "rows.jsonl"), "split": {"train": 0.7, "dev": 0.15, "test": 0.15}}
    parts = Task.load({**TASK, "labels": names, "data": data}).load_data()
    assert {name: len(part) for name, part in parts.items()} == {"train": 280, "dev": 60, "test": 60}
    counts = {name: Counter(label for row in part for label in row.values["labels"]) for name, part in parts.items()}
    means = {name: counts[name].total() / len(parts[name]) for name in parts}
    assert max(means.values()) - min(means.values()) < 0.3, means
    once = {tuple(own) for own in sets if sets.count(own) == 1}
    assert all(any(tuple(row.values["labels"]) in once for row in part) for part in parts.values())


def test_what_cannot_be_done_is_said(tmp_path):
    base, task = tiny_base("llama"), Task.load(TASK)
    with pytest.raises(ConfigError, match=r"answered by a head, so method\.head cannot be false"):
        train(base, task, {"name": "soft", "head": False}, rows=several_rows())
    with pytest.raises(ConfigError, match="labels is missing, the list of all labels"):
        train(base, Task.load({**TASK, "labels": []}), "soft", rows=several_rows())
    with pytest.raises(ConfigError, match="not chosen from a list"):
        distil(base, task, "soft", rows=several_rows())
    train(base, task, "infix", tmp_path, rows=several_rows(), train={"epochs": 1})
    runtime = Runtime(base)
    runtime.add("it", tmp_path)
    with pytest.raises(DataError, match="decides its labels"):
        runtime.stream({"text": "a"})
    path = tmp_path / "artifact" / "manifest.json"
    path.write_text(path.read_text().replace('"sun", "rain"', '"rain", "sun"'))
    with pytest.raises(ArtifactError, match="changed after it was written"):
        load(tmp_path)


def test_a_report_has_a_line_a_label_with_its_threshold():
    gold, given = [["sun"], ["sun", "mud"], []], [["sun"], ["mud"], []]
    scores = dict.fromkeys(LABELS, -1.0)
    outcomes = [Outcome(f"r:{k}", a, b, scores, 1.0, 4) for k, (a, b) in enumerate(zip(gold, given, strict=True))]
    found: Evaluation = summarize("micro_f1", outcomes)
    task = task_of(thresholds={"sun": 0.7})
    rows = [Row({"text": "x", "labels": labels}, f"r:{k}") for k, labels in enumerate(gold)]
    report = report_of("it", task, found, rows)
    sun, rain, mud, _ = report.labels
    assert (sun.right, sun.given, sun.precision.value, sun.recall.value, sun.threshold) == (2, 1, 1.0, 0.5, 0.7)
    assert sun.f1.value == pytest.approx(2 / 3) and rain.f1 is None and mud.f1.value == 1.0 and mud.threshold == 0.5
    assert report.distribution.perfect == pytest.approx(2 / 3)  # nothing to find and nothing found is right
    assert (report.worst[0].right, report.worst[0].given, report.worst[0].probability) == ("sun, mud", "mud", None)
    assert report.floor[1] == "the best set that is the same for all rows" and report.counted == "rows"


# The command line


def test_from_a_csv_to_answers(tmp_path):
    """`train`, `eval --report`, `predict` and `inspect` on a tiny base that is read from a folder."""
    base = tiny_base("llama")
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    rows = [row for part in several_rows(64).values() for row in part]
    lines = [
        f"{row.values['text']},{'|'.join(row.values['labels'])}" for row in dict.fromkeys(map(id, rows)) and rows[:64]
    ]
    (tmp_path / "rows.csv").write_text("text,topics\n" + "\n".join(dict.fromkeys(lines)) + "\n")
    task = {**TASK, "separator": "|", "data": {"source": "rows.csv", "columns": {"labels": "topics"}}}
    run = {"base": "base", "task": task, "method": {"name": "infix", "length": 2}, "train": {"epochs": 2}}
    (tmp_path / "run.yaml").write_text(json.dumps(run))
    done = cli("train", "run.yaml", "--out", "runs/it", "--test", cwd=tmp_path)
    assert done.returncode == 0 and "dev micro_f1" in done.stdout and "test micro_f1" in done.stdout, done.stderr
    done = cli("eval", "runs/it", "--report", "report.json", "--json", "score.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "score.json").read_text())["report"]["labels"]
    assert [one["label"] for one in told] == LABELS and all(0 < one["threshold"] < 1 for one in told)
    done = cli("eval", "runs/it", "--report", "report.html", cwd=tmp_path)
    assert done.returncode == 0 and "<th>threshold</th>" in (tmp_path / "report.html").read_text(), done.stderr
    (tmp_path / "asked.jsonl").write_text('{"text": "sun and mud"}\n')
    done = cli("predict", "runs/it", "--input", "asked.jsonl", cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert (
        done.returncode == 0
        and set(answer) == {"text", "artifact", "labels", "probabilities"}
        and list(answer["probabilities"]) == LABELS
    )
    done = cli("inspect", "runs/it", cwd=tmp_path)
    assert done.returncode == 0 and "thresholds" in done.stdout, done.stderr
    (tmp_path / "rows.csv").write_text("text,topics\na,sun|sun\nb,snow\nc,rain\n")
    done = cli("train", "run.yaml", "--out", "runs/other", cwd=tmp_path)
    assert done.returncode == 2 and "rows.csv:2: label 'sun' stands there twice" in done.stderr
    assert "rows.csv:3: label 'snow' is none that task.labels lists" in done.stderr


DOCS = Path(__file__).parents[1] / "docs"


def test_the_example_of_the_documentation_runs(tmp_path):
    """The task of data.md on rows such as it shows, by the commands of task-types.md."""
    base = tiny_base("llama")
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    section = (DOCS / "data.md").read_text(encoding="utf-8").partition("### Multi-label classification\n")[2]
    (task,) = re.findall(r"```yaml\n(.*?)```", section.partition("\n### ")[0], re.DOTALL)
    header, row = re.search(r"# (\S+)  and rows such as: (.*)", task).groups()
    text, _, labels = row.rpartition(",")
    assert set(labels.split(";")) < {"price", "delivery", "quality"}
    rows = [f"{text.replace('.', f' {place}.')},{(labels, 'price', '')[place % 3]}" for place in range(24)]
    (tmp_path / "orders.csv").write_text("\n".join([header, row, *rows]) + "\n", encoding="utf-8")
    run = (
        task.replace("base: minilm\nmethod: probe\n", "")
        + "base: base\nmethod: {name: prefix, length: 2}\ntrain: {max_steps: 2}\n"
    )
    assert run.count("base:") == 1
    (tmp_path / "orders.yaml").write_text(run, encoding="utf-8")
    (tmp_path / "new.csv").write_text("text\nIt came late.\n", encoding="utf-8")
    section = (DOCS / "task-types.md").read_text(encoding="utf-8").partition("## Several labels a row")[2]
    (commands,) = re.findall(r"```sh\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    done = [cli(*shlex.split(line, comments=True)[1:], cwd=tmp_path) for line in commands.strip().splitlines()]
    assert len(done) == 3 and not any(one.returncode for one in done), [one.stderr for one in done]
    trained, report, told = [one.stdout for one in done]
    assert "test micro_f1" in trained and all(label in report for label in ("price", "delivery", "quality"))
    assert set(json.loads(told)) == {"text", "artifact", "labels", "probabilities"}
