"""The comparison: what is run, in which order, with which rows; nothing is lost, whoever runs it and however it is killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import forked
import pytest
import yaml
from helpers import tiny_rows
from models import tiny_model, tiny_tokenizer

from softprompt.benchmarks.compare import executors
from softprompt.benchmarks.compare.context import RunContext
from softprompt.benchmarks.compare.drive import begin, describe, drive
from softprompt.benchmarks.compare.execute import execute
from softprompt.benchmarks.compare.executors import make_workers
from softprompt.benchmarks.compare.main import compare
from softprompt.benchmarks.compare.majority import commonest
from softprompt.benchmarks.compare.record import Measured, Place, Record, gold_of, read_all, write
from softprompt.benchmarks.compare.report.gather import Section, Table
from softprompt.benchmarks.compare.results import Results
from softprompt.benchmarks.compare.runs import Run, cells_of, count, left, next_runs, rates_of
from softprompt.benchmarks.compare.suite import ContenderSpec, SearchSpec, SuiteSpec, load_suite, ready_suites
from softprompt.benchmarks.compare.texts import texts_of
from softprompt.config import parse
from softprompt.data import Row
from softprompt.engine.cache import RowCache
from softprompt.errors import ConfigError, DataError, SoftpromptError
from softprompt.holding import held
from softprompt.metrics import estimate
from softprompt.tasks import Task

TASK = {
    "version": 1,
    "name": "tiny",
    "data": {"source": "rows.jsonl"},
    "template": {"instruction": "Good or bad? ", "input": "Text: {{ text }}", "cue": "\nIt is:"},
    "verbalizer": {"good": "good", "bad": "bad"},
}
SUITE = {
    "name": "small",
    "bases": ["base"],
    "tasks": ["task.yaml"],
    "sizes": [16],
    "dev": 8,
    "test": 20,
    "seeds": [0, 1],
    "train": {"batch_size": 8, "epochs": 2},
    "search": {"trials": 3, "halving": 3},
    "few_shot": 2,
    "contenders": ["probe", {"method": {"name": "infix", "length": 2}}],
    "without": ["lora"],
}


def test_a_suite_takes_the_task_of_a_run_file(folder):
    run = {"base": "smollm2", "task": TASK, "method": "infix"}
    (folder / "run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    suites = (suite_of(folder), suite_of(folder, "tasks=[run.yaml]"))
    assert suites[0].tasks != suites[1].tasks and cells_of(suites[0]) == cells_of(suites[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a base, rows, a task and a suite."""
    root = tmp_path_factory.mktemp("suite")
    tiny_model("llama").save_pretrained(root / "base")
    tiny_tokenizer().save_pretrained(root / "base")
    rows = [row for part in tiny_rows(60, 20, 40).values() for row in part]
    text = "".join(
        json.dumps({**row.values, "text": f"{row.values['text']} {place}"}) + "\n" for place, row in enumerate(rows)
    )
    (root / "rows.jsonl").write_text(text, encoding="utf-8")
    (root / "task.yaml").write_text(yaml.safe_dump(TASK), encoding="utf-8")
    (root / "suite.yaml").write_text(yaml.safe_dump({**SUITE, "bases": [str(root / "base")]}), encoding="utf-8")
    return root


def suite_of(folder: Path, *settings: str) -> SuiteSpec:
    return load_suite(str(folder / "suite.yaml"), list(settings))


def make(**changes) -> SuiteSpec:
    return parse(SuiteSpec, {**SUITE, "tasks": ["movie-reviews"], **changes}, "suite")


def run_all(suite: SuiteSpec, to: Path, name="here", workers=1, only=()):
    work = begin(suite, to, only)
    drive(work, make_workers(name, workers, suite.cache))
    return read_all(to)


TIMES = {"seconds", "seconds_in_all", "cpu_seconds", "when", "machine", "peak_rss", "commit", "dirty"}


def without_times(records):
    """What two undisturbed runs of one suite have in common."""
    found = {}
    for name, record in records.items():
        values = record.model_dump(exclude=TIMES)
        values["tokens"].pop("per_second")
        found[name] = values
    return found


def assert_alike(found, expected, where=""):
    """Equal but for the last digits of losses: a run that is taken up again encodes its rows in another company."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_alike(found[key], value, f"{where}/{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for index, value in enumerate(expected):
            assert_alike(found[index], value, f"{where}/{index}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-5), where
    else:
        assert found == expected, where


def test_the_majority_of_tags_and_the_texts_of_their_rows(folder, tmp_path):
    rows = [{"tokens": [f"w{k}", "met", "Bo"], "tags": ["O", "x", "x"]} for k in range(20)]
    rows += [{"text": f"so Bo {k}", "entities": [{"start": 3, "end": 5, "label": "x"}]} for k in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = {"name": "names", "type": "tagging", "tags": ["O", "x"], "template": {"input": "{{ text }}"}}
    task["data"] = {"source": str(tmp_path / "rows.jsonl")}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    suite = {**SUITE, "bases": [str(folder / "base")], "tasks": [str(tmp_path / "task.yaml")], "sizes": [8]}
    suite |= {"test": 6, "contenders": ["full"], "train": {"epochs": 1}}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite), encoding="utf-8")
    work = begin(suite_of(tmp_path), tmp_path / "out", ("majority",))
    drive(work, make_workers("here", 1, work.suite.cache))
    describe(work, "")
    (record,) = read_all(tmp_path / "out").values()
    assert record.status == "done", record.reason
    measured = record.tests["names"]
    where, gold = gold_of(tmp_path / "out", measured.digest)
    assert record.config["answer"] == "x" and measured.predicted == [["x"] * len(tags) for tags in gold]
    shown = texts_of(Results.load(tmp_path / "out"))("names")
    assert shown.keys() >= set(where)
    for name, text in shown.items():
        row = rows[int(name.rsplit(":", 1)[1]) - 1]
        assert text == (row["text"] if "text" in row else " ".join(row["tokens"]))


def test_the_commonest_of_several_right_texts_counts_once_a_row():
    task = Task.load({"name": "free", "type": "generation", "template": {"input": "{{ text }}"}})
    answers = [["a", "a", "a"], ["b"], ["c", "b"]]
    field = task.answer_fields[0]
    rows = [Row({"text": "so", field: texts}, f"r:{place}") for place, texts in enumerate(answers)]
    assert commonest(task, rows) == "b"


# what there is to run


def test_rows_that_are_always_there():
    names = [row.name for row in make(contenders=["soft"], without=[]).rows()]
    assert names == ["majority", "zero-shot", "2-shot", "soft", "lora", "full"]
    assert [row.name for row in make(contenders=[{"method": {"name": "lora", "r": 2}}]).rows()].count("lora") == 1


@pytest.mark.parametrize("together, count", [(True, 6), (False, 5)])
def test_what_is_varied_becomes_rows(together, count):
    vary = {"length": [1, 5, 20], "init": ["text", "random"]}
    rows = make(contenders=[{"method": "soft", "vary": vary, "together": together}]).rows()
    mine = [row for row in rows if row.family == "soft"]
    assert len(mine) == count and len({row.name for row in mine}) == count
    assert all(row.method | row.factors == row.method for row in mine)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"contenders": ["soft", "soft"]}, ["soft there twice"]),
        ({"contenders": [{"method": "soft", "lr": [0.1]}]}, ["1 learning rates", "search.trials is 3"]),
        ({"reference": "ful"}, ["ful", "did you mean 'full'"]),
        ({"seeds": [1000]}, ["search.seed 1000"]),
        ({"train": {"epoch": 1}}, ["epoch", "did you mean 'epochs'"]),
        ({"contenders": [{"method": "soft", "train": {"epoch": 1}}]}, ["epoch", "did you mean 'epochs'"]),
        ({"contenders": [{"method": "sotf"}]}, ["no method 'sotf'", "did you mean 'soft'"]),
        ({"contenders": [{"name": "x"}]}, ["needs a method"]),
        ({"tasks": []}, ["tasks"]),
        ({"dev": 64.5}, ["whole number"]),
        ({"margin": 2}, ["margin"]),
        ({"seeds": [0, 0]}, ["seeds", "twice"]),
        ({"seeds": [-1]}, ["seeds"]),
        ({"sizes": [16, 16]}, ["sizes", "twice"]),
        ({"tasks": ["tweets", "tweets"]}, ["tasks", "tweets there twice"]),
        ({"bases": ["a/base", "b/base"]}, ["bases", "base there twice"]),
        ({"tests": [{**TASK, "name": "movie-reviews"}]}, ["movie-reviews", "another task"]),
        ({"train": {"lr": 0.1}}, ["rates are searched"]),
        ({"contenders": [{"method": "soft", "train": {"lr": 0.1}}]}, ["rates are searched"]),
        ({"contenders": [{"method": "soft", "lr": [0.1, 0.1, 0.1]}]}, ["lr", "twice"]),
        ({"contenders": [{"method": "probe", "lr": [0.1, 0.2, 0.3]}]}, ["probe", "nothing", "gradients"]),
        ({"contenders": [{"method": {"name": 5}}]}, ["method's name (got 5)"]),
        ({"contenders": [{"method": "soft", "vary": {"length": []}}]}, ["vary.length"]),
        ({"contenders": [{"method": "soft", "vary": {"name": ["infix"]}}]}, ["vary", "the method itself"]),
        ({"contenders": [{"method": "soft", "seeds": []}]}, ["seeds"]),
        ({"contenders": [{"kind": "majority", "method": "soft"}]}, ["majority takes no other method"]),
    ],
)
def test_a_suite_that_cannot_be_used_is_refused(changes, words):
    with pytest.raises(ConfigError) as refused:
        cells_of(make(**changes))
    assert all(word in str(refused.value) for word in words) and "\n" not in str(refused.value)


def test_every_method_gets_as_many_learning_rates():
    for draw in ("grid", "log_uniform"):
        suite = make(contenders=["soft", "prefix"], search={"trials": 5, "draw": draw}, without=[])
        rates = {cell.place.contender: cell.rates for cell in cells_of(suite) if cell.rates}
        assert set(rates) == {"soft", "prefix", "lora", "full"}
        assert {len(set(found)) for found in rates.values()} == {5}
        default = 0.01  # soft's
        assert draw == "log_uniform" or default in rates["soft"]
        assert all(default / 9.01 <= rate <= default * 9.01 for rate in rates["soft"])
        assert rates == {cell.place.contender: cell.rates for cell in cells_of(suite) if cell.rates}


def test_dev_rows_are_labels_too():
    cells = {(cell.place.contender, cell.place.size): cell for cell in cells_of(make(sizes=[16, 512], dev=0.5))}
    assert cells["infix", 16].dev == 16 and cells["infix", 512].dev == 256
    assert {cell.place.size for cell in cells_of(make(sizes=[16, 512])) if cell.place.contender == "zero-shot"} == {
        None
    }


def test_shares_of_successive_halving():
    search = make(search={"trials": 9, "halving": 3}).search
    assert search.shares == [pytest.approx(1 / 9), pytest.approx(1 / 3)] and search.cost == pytest.approx(2)
    assert make(search={"trials": 4, "halving": None}).search.shares == [1.0]


def finished(run, value=0.5, status="done"):
    """A record as `execute` would leave it."""
    record = run.record()
    record.status = status
    record.dev = Measured(metric="accuracy", value=value, interval=(value, value), rows=8, nll=0.5, digest="x")
    return record


def test_search_first_then_the_seeds_that_are_reported():
    cell = next(
        c for c in cells_of(make(search={"trials": 4, "halving": 2}, seeds=[0, 1])) if c.place.contender == "full"
    )
    records = {}

    def take(values):
        runs = next_runs(cell, records)
        assert [run.id for run in runs] == [run.id for run in next_runs(cell, records)]
        for run in runs:
            records[run.id] = finished(run, values.get(run.lr, 0.1))
        return runs

    best = cell.rates[2]
    first = take({best: 0.9, cell.rates[0]: 0.8})
    assert [run.stage for run in first] == ["trial"] * 4 and {run.share for run in first} == {0.25}
    second = take({best: 0.7, cell.rates[0]: 0.6})
    assert {run.lr for run in second} == {best, cell.rates[0]} and {run.share for run in second} == {0.5}
    finals = take({})
    assert [(run.stage, run.seed, run.lr, run.share) for run in finals] == [
        ("final", 0, best, 1.0),
        ("final", 1, best, 1.0),
    ]
    assert next_runs(cell, records) == [] and len(records) == count(cell)


def test_a_failed_trial_is_out_and_a_cell_whose_trials_all_failed_ends():
    cell = next(c for c in cells_of(make()) if c.place.contender == "full")
    trials = next_runs(cell, {})
    records = {run.id: finished(run, 0.9, "failed" if run.lr == cell.rates[0] else "done") for run in trials}
    assert {run.lr for run in next_runs(cell, records)} <= set(cell.rates[1:])
    assert next_runs(cell, {run.id: finished(run, 0.9, "failed") for run in trials}) == []


def test_another_setting_is_another_run():
    def ids(**changes):
        return {run.id for cell in cells_of(make(**changes)) for run in next_runs(cell, {})}

    assert ids() == ids()
    for changes in ({"test": 21}, {"dev": 9}, {"draws": "fixed"}, {"train": {"batch_size": 4}}, {"tasks": ["tweets"]}):
        assert ids().isdisjoint(ids(**changes)), changes


def test_other_precision_of_kept_rows_or_other_data_is_another_run(folder):
    def ids(*settings):
        return {run.id for cell in cells_of(suite_of(folder, *settings)) for run in next_runs(cell, {})}

    before = ids()
    assert before == ids("cache.ram_gb=1") and before.isdisjoint(ids("cache.dtype=bf16"))
    rows = folder / "rows.jsonl"
    text = rows.read_text(encoding="utf-8")
    rows.write_text(text + '{"text": "one more", "label": "good"}\n', encoding="utf-8")
    try:
        assert before.isdisjoint(ids())
    finally:
        rows.write_text(text, encoding="utf-8")


def test_a_record_has_a_file_name_however_long_its_settings_are():
    long = {"method": {"name": "soft", "init": "text"}, "vary": {"text": ["word " * 80, "other " * 80]}}
    runs = [run for cell in cells_of(make(contenders=[long])) for run in next_runs(cell, {})]
    assert len({run.id for run in runs}) == len(runs) and max(len(run.id) for run in runs) < 250


# the rows


def task_of(folder, name, **data):
    """A suite's task whose rows come from elsewhere."""
    return {**TASK, "name": name, "data": {key: str(folder / value) for key, value in data.items()}}


def cell_of(folder, contender, *settings, **changes):
    suite = parse(SuiteSpec, {**suite_of(folder, *settings).model_dump(exclude_unset=True), **changes}, "suite")
    return next(cell for cell in cells_of(suite) if cell.place.contender == contender)


def test_rows_of_files_of_their_own(folder):
    """Dev rows are a stratified sample of a file that is sorted by label; what is not there is said before anything runs."""
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    ordered = sorted(lines[60:90], key=lambda line: json.loads(line)["label"])
    for name, part in {"train": lines[:60], "dev": ordered, "test": lines[90:]}.items():
        (folder / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")
    files = {name: f"{name}.jsonl" for name in ("train", "dev", "test")}

    def rows(*settings, **found):
        cell = cell_of(folder, "infix", *settings, tasks=[task_of(folder, "own", **found)])
        return RunContext(suite_of(folder).cache).rows(Run(cell, "final", 0, 0.1))

    found = rows(**files)
    assert [row.values["label"] for row in found["dev"]].count("good") == 4 and len(found["dev"]) == 8
    with pytest.raises(DataError, match="31 dev rows asked for, there are 30"):
        rows("dev=31", **files)
    with pytest.raises(DataError, match="own: has no test rows"):
        rows(train=files["train"], dev=files["dev"])


def test_rows_of_another_task_are_none_that_were_learned_from(folder):
    """The same rows under another name would be split otherwise, and test rows be among those that are trained on."""
    other = task_of(folder, "other", source="rows.jsonl") | {"template": {"input": "{{ text }}", "cue": " So:"}}
    other["data"]["split"] = {"seed": 7}
    run = Run(cell_of(folder, "infix", tests=[other]), "final", 0, 0.1)
    context = RunContext(suite_of(folder).cache)
    rows = context.rows(run)
    asked = {row.where for row in context.tests(run, rows["test"])["other"]}
    pool = context.rows_of(run.cell)
    assert asked and asked <= {row.where for row in pool["test"]}
    (folder / "fields.jsonl").write_text('{"words": "fine", "label": "good"}\n' * 3, encoding="utf-8")
    strange = task_of(folder, "strange", test="fields.jsonl") | {"template": {"input": "{{ words }}", "cue": ":"}}
    run = Run(cell_of(folder, "infix", tests=[strange]), "trial", 1000, 0.1)
    record = execute(run, context, False)[0]
    assert record.status == "failed" and "missing field 'text'" in str(record.reason)


def test_demonstrations_of_a_task_with_options(folder):
    """Options stand in no template that does not show them, but the right one is the answer of a demonstration."""
    lines = [{"text": f"the {n}th", "choices": ["good", "bad"], "answer": n % 2} for n in range(60)]
    (folder / "options.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    task = {**task_of(folder, "options", source="options.jsonl"), "type": "choice"}
    task.pop("verbalizer")
    record = execute(
        Run(cell_of(folder, "2-shot", tasks=[task]), "final", 0, None), RunContext(suite_of(folder).cache), False
    )[0]
    assert record.status == "done", record.reason


def test_demonstrations_are_each_seeds_own_where_training_rows_are_fixed(folder):
    context, cell = RunContext(suite_of(folder).cache), cell_of(folder, "2-shot", "draws=fixed")
    drawn = [{row.where for row in context.rows(Run(cell, "final", seed, None))["train"]} for seed in (0, 1)]
    assert drawn[0] != drawn[1]


def test_rows_of_a_run(folder):
    suite = suite_of(folder, "sizes=[8,16]")
    cells = {cell.place.size: cell for cell in cells_of(suite) if cell.place.contender == "infix"}
    context = RunContext(suite.cache)

    def rows(size, seed):
        found = context.rows(Run(cells[size], "final", seed, 0.1))
        return {name: [row.where for row in part] for name, part in found.items()}

    small, large, other = rows(8, 0), rows(16, 0), rows(16, 1)
    assert set(small["train"]) < set(large["train"]) and len(large["train"]) == 16
    assert set(large["train"]) != set(other["train"])
    assert large["test"] == other["test"] == small["test"] and len(large["test"]) == 20
    assert large["dev"] == other["dev"] and not set(large["dev"]) & {*large["train"], *other["train"], *large["test"]}
    fixed = next(cell for cell in cells_of(suite_of(folder, "draws=fixed")) if cell.place.contender == "infix")
    drawn = [[row.where for row in context.rows(Run(fixed, "final", seed, 0.1))["train"]] for seed in (0, 1)]
    assert drawn[0] == drawn[1]
    with pytest.raises(DataError, match="500 training rows asked for"):
        big = next(cell for cell in cells_of(suite_of(folder, "sizes=[500]")) if cell.place.contender == "infix")
        context.rows(Run(big, "final", 0, 0.1))


def test_a_row_is_encoded_once_for_all_runs(folder, monkeypatch):
    put, encoded, inside = RowCache.put, {}, []

    def counting(self, ids, value):
        if not inside:  # it calls itself once it has made room
            encoded.setdefault(id(self), []).append(ids)
        inside.append(ids)
        put(self, ids, value)
        inside.pop()

    monkeypatch.setattr(RowCache, "put", counting)
    suite = suite_of(folder, "search.trials=5", "search.halving=null", "seeds=[0,1,2,3]", "draws=fixed")
    cell = next(cell for cell in cells_of(suite) if cell.place.contender == "infix")
    context, records = RunContext(suite.cache), {}
    while runs := next_runs(cell, records):
        for run in runs:
            records[run.id] = execute(run, context, False)[0]
    assert len(records) == 9 and all(record.status == "done" for record in records.values())
    ours, *others = sorted(encoded.values(), key=len, reverse=True)
    assert len(ours) == len(set(ours)) == 16 + 8 + 20
    assert sum(map(len, others)) <= 4  # the doctor looks at a few rows by itself


# runs


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    to = tmp_path_factory.mktemp("undisturbed")
    return to, run_all(suite_of(folder), to)


def test_records(undisturbed):
    to, records = undisturbed
    finals = {(r.place.contender, r.seed): r for r in records.values() if r.stage == "final"}
    assert set(finals) == {
        ("majority", 0),
        ("zero-shot", 0),
        *((name, seed) for name in ("2-shot", "probe", "infix", "full") for seed in (0, 1)),
    }
    assert all(record.status == "done" and record.format == 1 for record in records.values())
    for record in finals.values():
        test = record.tests["tiny"]
        where, gold = gold_of(to, test.digest)
        assert test.rows == len(where) == len(set(where)) == 20
        assert test.predicted is not None
        assert estimate(test.metric, gold, test.predicted).value == test.value
        assert json.loads((to / "runs" / f"{record.id}.json").read_text(encoding="utf-8"))["id"] == record.id
    assert len({record.tests["tiny"].digest for record in finals.values()}) == 1
    infix, full, zero, majority = (finals[name, 0] for name in ("infix", "full", "zero-shot", "majority"))
    assert infix.trained == 3 * 2 * 2 * 64 // 2 and full.trained == full.stored > 50_000 and zero.trained == 0
    assert (
        full.artifact_bytes
        and infix.artifact_bytes
        and full.artifact_bytes > infix.artifact_bytes > zero.artifact_bytes
    )
    assert {look.metric for look in infix.curve} == {"accuracy"}
    assert infix.steps == 4 and infix.tokens.trained > 0 and infix.curve and infix.config["train"]["lr"] == infix.lr
    same = {finals[name, seed].tokens.request_kept for name in ("probe", "full") for seed in (0, 1)}
    assert same == {zero.tokens.request_kept}  # the same requests to all
    assert finals["2-shot", 0].tokens.request > zero.tokens.request > zero.tokens.request_kept
    assert majority.tests["tiny"].value == pytest.approx(0.5, abs=0.1)
    trials = [record for record in records.values() if record.stage == "trial"]
    assert len(trials) == 6 and all(not record.tests and record.dev and record.share < 1 for record in trials)
    assert len(Results.load(make_results(to)).tested()) == 6


def make_results(to: Path) -> Path:
    (to / "suite.json").write_text('{"name": "small"}', encoding="utf-8")
    return to


@pytest.fixture
def forked_pool(monkeypatch):
    """The pool's processes are forked from the server's (forked.py), which is the parent that they watch."""
    monkeypatch.setattr(executors.multiprocessing, "get_context", lambda method: forked.CONTEXT)
    watched = SimpleNamespace(getpid=lambda: forked.server().pid, cpu_count=os.cpu_count)
    monkeypatch.setattr(executors, "os", watched)


def test_processes_give_the_same_records(folder, undisturbed, tmp_path, forked_pool):
    found = run_all(suite_of(folder), tmp_path, "pool", 2)
    assert_alike(without_times(found), without_times(undisturbed[1]))


@pytest.mark.full  # in the default run processes do, and what an actor does is asked for below
def test_ray_gives_the_same_records(folder, undisturbed, tmp_path):
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'softprompt[ray]'")
    # workers are nice by default, and would wait for the tests beside them
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _system_config={"worker_niceness": 0})
    try:
        found = run_all(suite_of(folder), tmp_path, "ray", 2, only=("infix", "zero-shot", "majority"))
    finally:
        ray.shutdown()
    everything = without_times(undisturbed[1])
    assert len(found) == 7
    assert_alike(without_times(found), {name: everything[name] for name in found})


def test_what_fails_is_recorded_and_tried_again(folder, tmp_path):
    wild = "contenders=[{name: wild, method: {name: prefix, layers: 20-}}]"
    broken = suite_of(folder, wild, "without=[lora, full]", "reference=wild")
    records = run_all(broken, tmp_path)
    failed = [record for record in records.values() if record.status == "failed"]
    assert len(failed) == 3 and all(
        record.stage == "trial" and "has layers 0 to 2" in str(record.reason) for record in failed
    )
    assert sum(record.status == "done" for record in records.values()) == 4  # majority, zero-shot, two of 2-shot
    work = begin(broken, tmp_path)
    assert len(work.records) == 4 and {run.id for cell in work.cells for run in next_runs(cell, work.records)} == {
        record.id for record in failed
    }


def test_an_actor_gives_the_same_record(folder, undisturbed, monkeypatch):
    """Ray's side is a stand-in: the actor lives in this process."""
    killed = []

    def remote(**asked):
        assert asked["num_cpus"] == 1 and asked["max_restarts"] == 0
        return lambda kind: SimpleNamespace(remote=lambda *given: actor(kind(*given)))

    def actor(real):
        def run(*given):
            with ThreadPoolExecutor(1) as thread:
                done = thread.submit(real.run, *given)
            return SimpleNamespace(future=lambda: done)

        return SimpleNamespace(run=SimpleNamespace(remote=run))

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(remote=remote, kill=killed.append))
    run = Run(cell_of(folder, "zero-shot"), "final", 0, None)
    worker = executors.RayActor(1, 0, suite_of(folder).cache, False)
    before = worker._actor
    record, _ = worker.submit(run).result()
    assert not worker.fresh
    worker.restart()
    assert killed == [before] and worker.fresh
    everything = without_times(undisturbed[1])
    assert_alike(without_times({record.id: record}), {record.id: everything[record.id]})


def test_a_worker_that_dies_is_recorded_and_replaced(folder, tmp_path, monkeypatch, forked_pool):
    suite = suite_of(folder, "without=[lora, full]", "contenders=[probe]", "reference=probe")
    pool = make_workers("pool", 1, suite.cache)
    submit, killed = executors.Process.submit, []

    def dying(self, run):
        future = submit(self, run)
        if run.cell.place.contender == "zero-shot" and not killed:
            killed.append(run.id)
            for process in (self._pool._processes or {}).values():
                os.kill(process.pid, signal.SIGKILL)
        return future

    monkeypatch.setattr(executors.Process, "submit", dying)
    drive(begin(suite, tmp_path), pool)
    records = read_all(tmp_path)
    assert [name for name, record in records.items() if record.status == "failed"] == killed
    assert "its process ended" in str(records[killed[0]].reason) and len(records) == 6


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    """A peer's process must not train on when the run that waits for it is ended."""
    watch = "from softprompt.benchmarks.compare.parent import end_with\nimport os, sys, time\n"
    child = watch + "end_with(int(sys.argv[1]))\nprint('there', flush=True)\ntime.sleep(100)"
    parent = (
        "import os, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\nprint(child.pid)"
    )
    pid = int(subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True).stdout)
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return  # ended; nobody has asked for its exit code
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("it went on without its parent")


def test_records_of_other_settings_are_put_aside(folder, tmp_path):
    only = ("majority", "zero-shot")
    before = run_all(suite_of(folder), tmp_path, only=only)
    (tmp_path / "runs" / ".half.json.0123.tmp").touch()
    changed = begin(suite_of(folder, "test=10"), tmp_path)
    assert not list((tmp_path / "runs").iterdir())
    assert changed.stale == 2 and not changed.records
    assert {path.stem for path in (tmp_path / "stale").iterdir()} == set(before)


def test_what_is_refused_moves_no_record(folder, tmp_path):
    before = run_all(suite_of(folder), tmp_path, only=("majority", "zero-shot"))
    with pytest.raises(DataError, match="100000 training rows asked for"):
        compare(str(folder / "suite.yaml"), ["sizes=[100000]"], tmp_path)
    assert {path.stem for path in (tmp_path / "runs").iterdir()} == set(before)
    (tmp_path / "stale").touch()
    with pytest.raises(SoftpromptError, match="stale: cannot be written"):
        begin(suite_of(folder, "test=10"), tmp_path)


def test_zero_shot_shows_nothing_and_few_shot_what_it_says(folder):
    """Whatever demonstrations the task has of its own, which other contenders keep."""
    suite = suite_of(folder)
    own = [{"text": "a good day", "label": "good"}]
    asked = {}
    for cell in cells_of(suite):
        context = RunContext(suite.cache)
        task = Task.load(cell.task)
        shots = task.spec.demonstrations.model_copy(update={"k": 1, "rows": own})
        shown = type(task)(task.spec.model_copy(update={"demonstrations": shots}), task.folder)
        context.task = lambda cell, shown=shown: shown
        found = context.asked(Run(cell, "final", 3, None)).spec.demonstrations
        asked[cell.place.contender] = (found.k, found.rows, found.seed)
    assert asked["zero-shot"][:2] == (0, []) and asked["2-shot"] == (2, [], 3) and asked["infix"][:2] == (1, own)


@pytest.mark.parametrize(("workers", "first"), [(1, ["majority"]), (2, ["full", "infix"])])
def test_of_several_lanes_each_begins_with_the_longest_cell(folder, tmp_path, workers, first):
    class Slow:
        fresh, restart, close = True, (lambda self: None), (lambda self: None)

        def __init__(self):
            self.thread = ThreadPoolExecutor(1)

        def submit(self, run):
            begun.append(run.cell.place.contender)
            return self.thread.submit(lambda: (time.sleep(0.05), (run.record(), {}))[1])

    begun = []
    long = {"full": 9.0, "infix": 5.0, "probe": 1.0}
    pool = [Slow() for _ in range(workers)]
    drive(begin(suite_of(folder), tmp_path), pool, expected=lambda cell: long.get(cell.place.contender, 0.0))
    assert begun[:workers] == first


def test_a_worker_that_died_between_two_runs_is_replaced(folder, forked_pool):
    suite = suite_of(folder)
    cell = next(cell for cell in cells_of(suite) if cell.place.contender == "majority")
    (worker,) = make_workers("pool", 1, suite.cache)
    try:
        assert worker.submit(Run(cell, "final", 0, None)).result()[0].status == "done"
        for process in worker._pool._processes.values():
            process.kill()
            process.join()
        time.sleep(1)  # the pool's thread sees it
        assert worker.submit(Run(cell, "final", 0, None)).result()[0].status == "done"
    finally:
        worker.close()


def test_only_names_contenders(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"no contender 'infx'.*did you mean 'infix'"):
        begin(suite_of(folder), tmp_path, ["infx"])


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.full)])
def test_killed_at_random_moments(folder, undisturbed, tmp_path, kills, forks):
    """Kill -9 of the command; the same command goes on, and the records are those of an undisturbed run."""
    arguments = ["bench", "compare", str(folder / "suite.yaml"), "--no-estimate", "--out", str(tmp_path)]
    arguments += [] if kills > 2 else ["--only", "infix", "--only", "zero-shot"]
    rng = random.Random(0)
    seen = []
    command = [sys.executable, "-m", "softprompt", *arguments]

    def there():
        return len(list(tmp_path.glob("runs/*.json")))

    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        began, before = time.monotonic(), there()
        while process.poll() is None and there() == before and time.monotonic() - began < 60:
            time.sleep(0.05)  # the start takes seconds, the runs less: kill among the runs
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.wait()
        seen.append(there())
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, everything = read_all(tmp_path), without_times(undisturbed[1])
    assert seen[0] < len(found) == (len(everything) if kills > 2 else 6)
    assert_alike(without_times(found), {name: everything[name] for name in found})
    assert not list(tmp_path.glob("runs/.*"))


# ready suites


@pytest.mark.parametrize("name", sorted(ready_suites()))
def test_ready_suites_can_be_planned(name):
    suite = load_suite(name, [])
    cells = cells_of(suite)
    assert suite.name == name and suite.title and {"majority", "zero-shot"} <= {cell.place.contender for cell in cells}
    assert all(count(cell) for cell in cells)
    again = parse(SuiteSpec, suite.model_dump(mode="json"), "suite.json")  # as the report reads it
    assert again.test == suite.test and [cell.place for cell in cells_of(again)] == [cell.place for cell in cells]


def test_a_record_that_is_no_record_is_told(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json.*delete it"):
        read_all(tmp_path)
    record = Record(id="a", suite="s", stage="final", place=Place(base="b", task="t", contender="c"), seed=0)
    text = json.dumps({**record.model_dump(mode="json"), "sead": 1})
    (tmp_path / "runs" / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"unknown key 'sead'.*did you mean 'seed'"):
        read_all(tmp_path)


def test_what_cannot_run_on_a_base_is_left_out_and_said(folder, tmp_path):
    """The rows that are there unasked must not make every suite on an int8 base or an encoder fail."""
    wild = "contenders=[{name: wild, optional: true, method: {name: prefix, layers: 20-}}]"
    suite = suite_of(folder, wild, "without=[lora, full]", "reference=wild")
    work = begin(suite, tmp_path)
    drive(work, make_workers("here", 1, suite.cache))
    assert not work.failed and list(work.skipped) == ["wild"] and "has layers 0 to 2" in work.skipped["wild"]


def test_an_encoder_is_not_asked_without_training(folder, tmp_path):
    """Its answers come from a head, and a head that has been trained on all rows is no zero-shot."""
    tiny_model("distilbert").save_pretrained(tmp_path / "encoder")
    tiny_tokenizer(frame="masked").save_pretrained(tmp_path / "encoder")
    base = f"bases=[{{name: {tmp_path / 'encoder'}, kind: encoder}}]"
    suite = suite_of(folder, base, "without=[lora, full]", "reference=probe", "search.trials=1")
    suite = parse(
        SuiteSpec, suite.model_dump() | {"contenders": ["probe", {"method": {"name": "hard", "head": True}}]}, "s"
    )
    assert [(cell.place.size, cell.rates) for cell in cells_of(suite)][-2:] == [(16, ()), (16, (0.005,))]
    work = begin(suite, tmp_path / "out")
    drive(work, make_workers("here", 1, suite.cache))
    assert not work.failed and list(work.skipped) == ["2-shot", "zero-shot"]
    assert all("has no words to answer with" in reason for reason in work.skipped.values())


def test_seeds_and_rates_that_are_not_asked_for_any_more_are_put_aside(folder, tmp_path):
    run_all(suite_of(folder), tmp_path, only=("infix",))
    fewer = begin(suite_of(folder, "seeds=[1]"), tmp_path, ["infix"])
    drive(fewer, [])
    assert {record.seed for record in fewer.records.values() if record.stage == "final"} == {1} and fewer.stale == 1
    records = {record.id: record for record in fewer.records.values()}
    chosen = next(record.lr for record in records.values() if record.stage == "final")
    trial = next(record for record in records.values() if record.stage == "trial" and record.lr != chosen)
    trial.dev.value, trial.dev.nll = (
        1.0,
        0.0,
    )  # as if it had been the best all along: the chosen rate is another one now
    again = begin(suite_of(folder, "seeds=[1]"), tmp_path, ["infix"])
    again.records[trial.id] = trial
    drive(again, make_workers("here", 1, suite_of(folder).cache))
    assert [record.lr for record in again.records.values() if record.stage == "final"] == [trial.lr]


def test_other_seeds_are_made_although_as_many_records_are_there(folder, tmp_path):
    only = ("probe", "2-shot")
    run_all(suite_of(folder), tmp_path, only=only)
    work = begin(suite_of(folder, "seeds=[2,3]"), tmp_path, only)
    assert work.left() == 4 and sum(left(cell, {}) for cell in work.cells) == work.total == 4
    drive(work, make_workers("here", 1, work.suite.cache))
    assert {record.seed for record in read_all(tmp_path).values()} == {2, 3} and work.left() == 0


def test_a_failed_run_that_is_not_asked_for_any_more_is_put_aside(folder, tmp_path):
    run_all(suite_of(folder), tmp_path, only=("probe",))
    path = next((tmp_path / "runs").glob("*s1*"))
    path.write_text(
        path.read_text(encoding="utf-8").replace('"status": "done"', '"status": "failed"'), encoding="utf-8"
    )
    drive(begin(suite_of(folder, "seeds=[0]"), tmp_path, ("probe",)), [])
    assert {record.seed for record in read_all(tmp_path).values()} == {0}


def test_a_seed_counts_once_while_a_search_goes_on(undisturbed, tmp_path):
    """Killed between two rates' final runs, both are there; those of the newest rate are meant."""
    to, records = undisturbed
    shutil.copytree(to, tmp_path / "copy")
    final = next(r for r in records.values() if r.stage == "final" and r.place.contender == "infix" and r.seed == 0)
    again = final.model_copy(update={"id": "again", "lr": 0.5, "when": "9999-01-01T00:00:00+00:00"})
    write(tmp_path / "copy", again)
    (found,) = [t for t in Results.load(make_results(tmp_path / "copy")).tested() if t.place.contender == "infix"]
    assert [record.id for record in found.records] == ["again"]


def test_the_main_table_is_one_with_the_reference():
    """A size that only cheap methods have says nothing of the others."""
    small, large = (Table("b", "t", size, "t", None, [], there, []) for size, there in ((16, object()), (64, None)))
    assert Section("b", "t", [small, large], []).main is small
    assert Section("b", "t", [large], []).main is large


@contextlib.contextmanager
def another_holds(folder):
    """Hold a folder as another thread would: in this one `compare` might hold it again."""
    inside, done = threading.Event(), threading.Event()

    def hold():
        with held(folder, "taken"):
            inside.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_one_command_a_folder_and_one_suite(folder, tmp_path):
    to = tmp_path / "out"
    with another_holds(to), pytest.raises(SoftpromptError, match="another `bench compare` is at work here"):
        compare(str(folder / "suite.yaml"), [], to, estimate=False)
    to.mkdir()  # (what is made to be held, and stays empty, goes again)
    make_results(to)
    with pytest.raises(ConfigError, match="holds the results of suite 'small', not of 'other'"):
        compare(str(folder / "suite.yaml"), ["name=other"], to, estimate=False)
    (to / "suite.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"suite\.json: cannot be read"):
        Results.load(to)
    (tmp_path / "file").touch()
    with pytest.raises(SoftpromptError, match="cannot be written"):
        compare(str(folder / "suite.yaml"), [], tmp_path / "file", estimate=False)


CLUSTER = [{"Alive": True, "Resources": {"CPU": 1.0}}, {"Alive": False, "Resources": {"CPU": 8.0}}]


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.full)])
def test_more_workers_than_the_cluster_has_are_refused(monkeypatch, real):
    """Of a stand-in, and of Ray."""
    if real:
        ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'softprompt[ray]'")
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    else:
        ray = SimpleNamespace(is_initialized=lambda: True, nodes=lambda: CLUSTER, shutdown=lambda: None)
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setattr(executors, "find_spec", lambda name: name)
    try:
        with pytest.raises(ConfigError, match="--workers 2: the cluster has 1 processors"):
            make_workers("ray", 2, make().cache)
    finally:
        ray.shutdown()
    with pytest.raises(ConfigError, match="--artifacts"):
        make_workers("ray", 1, make().cache, artifacts=Path("x"))
    with pytest.raises(ConfigError, match="--workers"):
        make_workers("here", 2, make().cache)


def test_peak_memory_is_that_of_a_run_alone(folder, tmp_path, forked_pool):
    suite = suite_of(folder)
    work = begin(suite, tmp_path, ["zero-shot", "2-shot"])
    drive(work, make_workers("here", 1, suite.cache, isolate=True), isolate=True)
    assert len(work.records) == 3 and all(record.peak_rss > 50_000_000 for record in work.records.values())


def test_results_name_no_folder(undisturbed):
    to, _ = undisturbed
    texts = [path.read_text(encoding="utf-8") for path in (to / "rows").iterdir()]
    assert texts and all("rows.jsonl:" in text and "/" not in text for text in texts)


RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


@pytest.mark.parametrize("name", sorted(path.parent.name for path in RESULTS.glob("*/suite.json")))
def test_committed_results_are_whole(name):
    """Every figure of a committed report can be computed again from the records beside it."""
    results = Results.load(RESULTS / name)
    assert results.records and not results.failed and results.suite["command"].startswith("softprompt bench compare")
    for tested in results.tested():
        for found in tested.measured:
            assert estimate(found.metric, tested.gold, found.predicted).value == pytest.approx(found.value)
    text = "".join(path.read_text(encoding="utf-8") for path in (RESULTS / name).rglob("*.*") if path.suffix != ".html")
    assert not re.search(r"/(root|home|tmp|work)/", text)
    assert "<script" not in (RESULTS / name / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def ask(folder):
    """The command on the suite in the folder."""
    from test_cli import cli

    return lambda *arguments: cli("bench", "compare", folder / "suite.yaml", *arguments, cwd=folder)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["sizes=[16,500]"], ["500 training rows asked for, there are"]),
        (["seeds=[]"], ["seeds", "at least 1"]),
        (["--only", "infx"], ["did you mean 'infix'"]),
        (["tests=[product-reviews]"], ["tests: product-reviews", "rows are none of tiny", "product-reviews.jsonl:"]),
        (["--workers", "3", "--executor", "here"], ["--workers", "--executor pool"]),
        (["test=9000"], ["9000"]),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(ask, tmp_path, arguments, words):
    done = ask(*arguments, "--no-estimate", "--out", tmp_path / "out")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and all(word in last for word in words), done.stderr
    assert not list((tmp_path / "out").glob("runs/*"))


def test_the_plan_says_what_is_shared_and_makes_nothing(ask, tmp_path):
    done = ask("--dry-run", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "tiny on base: each row is encoded once for all 5 runs of infix" in done.stdout
    assert "16 runs in all" in done.stdout and "expected: about" in done.stdout
    assert not (tmp_path / "out").exists()


def test_the_command_writes_a_report_and_fails_if_a_run_does(ask, tmp_path):
    to = tmp_path / "out"
    done = ask("--no-estimate", "--only", "infix", "--only", "zero-shot", "--only", "full", "--out", to, "--artifacts")
    assert done.returncode == 0, done.stderr
    assert "in runs" not in done.stderr and "infix" in done.stdout and "report.html" in done.stdout
    assert {path.name for path in to.glob("report.*")} == {"report.html", "report.md", "report.csv"}
    assert len(list((to / "artifacts").glob("*infix*/adapter_model.safetensors"))) == 2
    before = {path.name: path.stat().st_mtime_ns for path in (to / "runs").iterdir()}
    again = ask("--no-estimate", "--only", "infix", "--only", "zero-shot", "--only", "full", "--out", to)
    commands = json.loads((to / "suite.json").read_text(encoding="utf-8"))["command"].splitlines()
    assert len(commands) == 2 and "--artifacts" in commands[0] and "--artifacts" not in commands[1]
    assert again.returncode == 0 and before == {path.name: path.stat().st_mtime_ns for path in (to / "runs").iterdir()}
    wild = "contenders=[{name: wild, method: {name: prefix, layers: 20-}}]"
    done = ask(wild, "--no-estimate", "--out", tmp_path / "wild", "--only", "wild", "--only", "zero-shot")
    assert done.returncode == 1 and "failed: tiny_base_wild" in done.stderr and "has layers 0 to 2" in done.stderr


def test_the_rates_of_a_task_that_only_a_head_answers_are_laid_round_its_own():
    search = SearchSpec(trials=1)
    tagging, choosing = ({"type": "tagging"}, {})
    rates = {
        name: [
            rates_of(ContenderSpec(name="a", kind="method", method=method), search, task)
            for task in (tagging, choosing)
        ]
        for name, method in {"full": {"name": "full"}, "alone": {"name": "hard", "head": True}}.items()
    }
    assert rates["full"] == [(5e-5,), (2e-5,)]
    assert rates["alone"][0] == rates["alone"][1] == (5e-3,)
