"""The measurement of defaults: draws, records, resuming, the report. No base is loaded but a tiny one."""

import csv
import json
import math
from collections import Counter

import numpy as np
import pytest
from helpers import GOOD, tiny_rows
from models import tiny_base

from softprompt.benchmarks.defaults import contenders, records, runs
from softprompt.benchmarks.defaults.__main__ import main
from softprompt.benchmarks.defaults.baselines import Majority
from softprompt.benchmarks.defaults.contender import Context, Prediction
from softprompt.benchmarks.defaults.data import label_of, labelled_splits, read_data_set
from softprompt.benchmarks.defaults.encoders import FrozenStates
from softprompt.benchmarks.defaults.product import ProductMethod, spikes
from softprompt.benchmarks.defaults.report import as_markdown, interval_of
from softprompt.errors import DataError
from softprompt.tasks import Task
from softprompt.tasks.proposed import propose

COUNTS = {"billing": 60, "shipping": 36, "rare": 4}
ALL = ("--only", "majority,tfidf", "--seeds", "0-1", "--rows", "20", "--test", "30")


@pytest.fixture
def folder(tmp_path):
    """Two data sets of three labels, one of them rare."""
    for name in ("letters", "mails"):
        with (tmp_path / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for label, count in COUNTS.items():
                writer.writerows([f"{label} text, number {place} of {name}", label] for place in range(count))
    return tmp_path


def measure(folder, *arguments):
    return main([str(folder), "--out", str(folder / "results"), *(arguments or ALL)])


def test_test_rows_are_fixed_and_labelled_rows_are_each_seeds_own(folder):
    data = read_data_set(folder / "mails.csv", 20, 30)
    assert data.labels == ("billing", "rare", "shipping") and len(data.test) == 30 and len(data.pool) == 70
    assert data == read_data_set(folder / "mails.csv", 20, 30)
    draws = [data.draw(20, seed) for seed in (0, 1, 0)]
    assert draws[0] == draws[2] != draws[1]
    for drawn in draws:
        counts = Counter(map(label_of, drawn))
        assert counts["rare"] == 2 and counts["billing"] in (11, 12) and sum(counts.values()) == 20
        assert len({row.where for row in [*drawn, *data.test]}) == 50


def test_a_small_file_gives_what_it_has_and_a_smaller_one_is_refused(folder):
    assert len(read_data_set(folder / "mails.csv", 80, 500).test) == 20
    with pytest.raises(DataError, match=r"mails\.csv: has 100 rows, too few for 90 labelled rows"):
        read_data_set(folder / "mails.csv", 90, 500)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("billing  text, number 3 of mails ,billing", "1 rows that are copies of other rows"),
        ("billing text, number 3 of mails,rare", "2 rows that ask the same as others and have different labels"),
    ],
)
def test_a_text_that_stands_twice_is_refused_as_it_could_be_learned_and_measured(folder, row, told):
    text, _, label = row.rpartition(",")
    with (folder / "mails.csv").open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow([text, label])
    with pytest.raises(DataError, match=rf"mails\.csv: holds {told} .*mails\.csv:102.*; remove these"):
        read_data_set(folder / "mails.csv", 20, 30)


def test_labelled_rows_are_divided_for_training(folder):
    data = read_data_set(folder / "mails.csv", 50, 30)
    task = Task.load(propose("classification", ["text"], data.labels))
    parts = labelled_splits(task, data.draw(50, 0), 0)
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 40, "dev": 10}
    assert not {row.where for row in parts["train"]} & {row.where for row in parts["dev"]}


def test_each_run_leaves_a_record(folder, capsys):
    assert measure(folder) == 0
    files = sorted(path.relative_to(folder / "results").as_posix() for path in folder.glob("results/*/*"))
    names = ("majority-0", "majority-1", "tfidf-0", "tfidf-1")
    assert files == [f"{task}/{name}.json" for task in ("letters", "mails") for name in names]
    majority = records.read(folder / "results/mails/majority-0.json")
    data = read_data_set(folder / "mails.csv", 20, 30)
    share = sum(label_of(row) == "billing" for row in data.test) / 30
    assert majority.accuracy == majority.majority == pytest.approx(share)
    assert majority.predicted == [0] * 30 and majority.rows == {"train": 20, "test": 30}
    counts = Counter(map(label_of, data.draw(20, 0)))
    loss = np.mean([-math.log((counts[label_of(row)] + 1) / 23) for row in data.test])
    assert majority.log_loss == pytest.approx(loss)
    assert records.read(folder / "results/mails/tfidf-0.json").accuracy == 1
    assert majority.versions["softprompt"] and majority.settings == {"name": "majority"}
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "8 runs, 0 of them made already" and said[1].startswith("[1/8] letters majority-0: accuracy 0.")


def test_a_run_is_made_once(folder, capsys):
    measure(folder, *ALL, "--tasks", "mails")
    before = {path: path.stat().st_mtime_ns for path in folder.glob("results/*/*")}
    (folder / "results/mails/tfidf-1.json").unlink()
    capsys.readouterr()
    assert measure(folder, *ALL, "--tasks", "mails") == 0
    after = {path: path.stat().st_mtime_ns for path in folder.glob("results/*/*")}
    assert [path.name for path in after if after[path] != before[path]] == ["tfidf-1.json"]
    assert "4 runs, 3 of them made already" in capsys.readouterr().out


def test_ctrl_c_keeps_what_is_done(folder, capsys, monkeypatch):
    class Stopping(Majority):
        def fit_predict(self, *given):
            if given[3] == 1:
                raise KeyboardInterrupt
            return super().fit_predict(*given)

    monkeypatch.setitem(contenders.CONTENDERS, "majority", Stopping())
    assert measure(folder) == 130
    assert "the same command goes on" in capsys.readouterr().err
    kept = {path: path.read_bytes() for path in folder.glob("results/*/*")}
    assert len(kept) == 4 and all(path.name.endswith("-0.json") for path in kept)
    monkeypatch.setitem(contenders.CONTENDERS, "majority", Majority())
    assert measure(folder) == 0
    assert len(list(folder.glob("results/*/*.json"))) == 8
    assert all(path.read_bytes() == text for path, text in kept.items())


def test_a_record_of_other_settings_is_not_mixed_in(folder, capsys):
    measure(folder)
    assert measure(folder, *ALL, "--rows", "21") == 2
    assert "was made with another data file, other --rows or --test" in capsys.readouterr().err


def test_a_failed_run_says_why_and_is_made_again(folder, capsys, monkeypatch):
    class Failing(Majority):
        def fit_predict(self, *given):
            raise ValueError("no\nluck")

    monkeypatch.setitem(contenders.CONTENDERS, "majority", Failing())
    assert measure(folder) == 1
    record = records.read(folder / "results/mails/majority-0.json")
    assert (record.status, record.reason) == ("failed", "ValueError: no luck")
    assert "Failed: mails majority-0: ValueError: no luck" in as_markdown(records.read_all(folder / "results"))
    monkeypatch.setitem(contenders.CONTENDERS, "majority", Majority())
    assert measure(folder) == 0 and records.read(folder / "results/mails/majority-0.json").status == "done"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "tfid"), "no contender 'tfid' (did you mean 'tfidf'?)"),
        (("--tasks", "mail"), "holds no mail.csv (did you mean 'mails'?)"),
    ],
)
def test_a_wrong_name_is_refused_in_one_line(folder, capsys, arguments, said):
    assert measure(folder, *arguments) == 2
    assert said in capsys.readouterr().err


def test_log_probabilities_must_fit_the_data(folder):
    data = read_data_set(folder / "mails.csv", 20, 30)
    with pytest.raises(DataError, match=r"shape \(30, 2\).*expected \(30, 3\)"):
        records.measured(data, data.draw(20, 0), Prediction(np.zeros((30, 2)), 0.0, 0.0))
    certain = np.full((30, 3), -np.inf)
    certain[:, 0] = 0
    figures = records.measured(data, data.draw(20, 0), Prediction(certain, 0.0, 0.0))
    assert figures["log_loss"] == pytest.approx((1 - figures["accuracy"]) * -math.log(1e-6))


def made_record(task, contender, seed, accuracy, **info):
    return records.Record(
        task=task, contender=contender, seed=seed, digest="", accuracy=accuracy, majority=0.3, info=info
    )


def test_the_report_counts_runs_that_disappoint():
    made = []
    for seed, (probe, infix, lora) in enumerate([(0.8, 0.75, 0.9), (0.8, 0.9, 0.34), (0.8, 0.9, 0.86)]):
        made += [made_record("mails", "probe", seed, probe)]
        made += [made_record("mails", "infix", seed, infix, learned=True, spikes=2)]
        made += [made_record("mails", "lora", seed, lora, learned=True, spikes=0)]
    text = as_markdown(made)
    assert "| infix | 85.0 ± 21.5 |" in text and "| infix | 1 of 1 | 85.0 ± 21.5 |" in text
    assert "Best learned contender by task: mails infix 85.0." in text
    # 0.75 is 5 points below the probe and 10 below the best mean; 0.34 is all of it
    assert "| infix | 3 | −5.0 (mails-0) | −10.0 (mails-0) | 1 | 1 | 0 | 1 |" in text
    assert "| lora | 3 | −46.0 (mails-1) | −51.0 (mails-1) | 1 | 1 | 1 | 1 |" in text
    assert "| probe | 3 | +0.0 (mails-0) | −5.0 (mails-0) | 0 | 0 | 0 | 0 |" in text


def test_the_report_of_what_was_measured(folder, capsys):
    measure(folder)
    capsys.readouterr()
    assert main(["report", str(folder / "results")]) == 0
    said = capsys.readouterr().out
    assert "| contender | letters | mails |" in said and "| tfidf | 100.0 ± 0.0 | 100.0 ± 0.0 |" in said
    assert "| majority | 4 | – | – | – | – | 4 | 4 |" in said
    assert main(["report", str(folder)]) == 2


def test_the_interval_is_students():
    value, half = interval_of([0.8, 0.9, 1.0])
    assert value == pytest.approx(0.9) and half == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)
    assert interval_of([0.5]) == (0.5, None)


def test_spikes_are_steps_far_above_those_before():
    flat = [1.0] * 15
    assert spikes(flat) == 0 and spikes([*flat, 2.1, 1.0, 1.9]) == 1
    assert spikes([0.01] * 12 + [0.3]) == 0  # many times more, but little
    assert spikes([9.0, *flat]) == 0  # the first steps have none before them


def test_the_time_left_is_told_by_contender():
    known = [made_record("mails", "probe", 0, 0.5), made_record("mails", "lora", 0, 0.5)]
    known[0].fit_seconds, known[1].predict_seconds = 10, 30
    assert runs.seconds_left(["probe", "lora", "lora", "soft"], known) == 10 + 30 + 30 + 20
    assert runs.seconds_left(["probe"], []) == 0


@pytest.mark.parametrize(
    "contender",
    [
        ProductMethod("probe", {"name": "probe"}, "tiny"),
        ProductMethod("infix", {"name": "infix", "length": 2}, "tiny"),
        FrozenStates(base="tiny"),
    ],
    ids=lambda contender: contender.name,
)
def test_a_contender_answers_every_test_row(contender):
    rows, context = tiny_rows(train=20, test=4), Context()
    context.bases["tiny"] = tiny_base("bert" if contender.name == "minilm_lr" else "llama")
    found = contender.fit_predict(rows["train"], rows["test"], ["bad", "good", "other"], 0, context)
    assert found.log_probs.shape == (4, 3)
    assert np.allclose(np.exp(found.log_probs).sum(axis=1), 1, atol=1e-5)
    assert found.info["base"] == "tiny" and bool(found.info.get("learned")) == (contender.name == "infix")
    if contender.name == "infix":
        assert found.info["rows"] == {"train": 16, "dev": 4} and found.info["steps"] == found.info["train"]["max_steps"]
    else:  # solved on words that say the label
        right = [
            k == any(word in row.values["text"] for word in GOOD)
            for k, row in zip(found.log_probs[:, :2].argmax(1), rows["test"], strict=True)
        ]
        assert sum(right) >= 3 and found.log_probs[:, 2].max() < -3
    json.dumps(found.info)


def test_a_contender_names_its_train_settings_where_it_has_some():
    """Records of the others, which were made before there were any, are still theirs."""
    every = contenders.CONTENDERS
    assert every["minilm-full-contrastive"].settings["train"] == {"objective": "contrastive"}
    assert set(every["minilm-full"].settings) == {"name", "method", "base"}
