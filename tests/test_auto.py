"""What `auto` takes: one way alone or several together, by rows that were held back."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import tiny_rows, tiny_task
from models import tiny_base

from softprompt import PromptClassifier, Runtime, Task, auto
from softprompt import artifact as artifacts
from softprompt.answers import Outcome, summarize
from softprompt.auto import Contender, Tried, choosing, contenders_for, is_open, running, trying
from softprompt.auto.choosing import weighed
from softprompt.auto.trying import folds_of
from softprompt.ensemble import fit_weights
from softprompt.errors import ConfigError, DataError, TrainingError
from softprompt.estimators import shared
from softprompt.estimators.shared import SharedRows
from softprompt.methods import make_method
from softprompt.run_reader import load_run, make_run
from softprompt.runfile import TrainSpec
from softprompt.tasks.proposed import propose
from softprompt.training import train


def tried(title: str, probabilities: list[float], gold: list[str], counts: list[float] | None = None) -> Tried:
    """A contender that gives the label `good` these probabilities."""
    outcomes = []
    for place, (p, label) in enumerate(zip(probabilities, gold, strict=True)):
        scores = {"bad": float(np.log(1 - p)), "good": float(np.log(p))}
        outcomes.append(Outcome(str(place), label, "good" if p > 0.5 else "bad", scores, -scores[label]))
    counts = tuple(counts or [1.0] * len(gold))
    return Tried(Contender(title, "base"), summarize("accuracy", outcomes), counts, 0.0)


def test_what_is_open():
    assert [one.title for one in contenders_for("auto", "auto")] == [
        "probe on minilm",
        "probe on smollm2",
        "infix on smollm2",
    ]
    assert [one.title for one in contenders_for("mine", "auto")] == ["probe on mine", "infix on mine"]
    assert [one.title for one in contenders_for("minilm", "auto")] == ["probe on minilm", "prefix on minilm"]
    assert [one.method["name"] for one in contenders_for(tiny_base("bert"), {"name": "auto"})] == ["probe", "prefix"]
    assert [one.base for one in contenders_for("auto", "probe")] == ["minilm", "smollm2"]
    assert not is_open("auto", "infix") and not is_open("smollm2", {"name": "probe"}) and is_open("auto", "auto")


def test_folds_hold_every_row_once_and_both_labels():
    rows = tiny_rows(20)["train"]
    folds = folds_of(tiny_task(), rows, 3, 0)
    assert sorted(place for fold in folds for place in fold) == list(range(20))
    assert all({rows[place].values["label"] for place in fold} == {"good", "bad"} for fold in folds)


def test_the_better_one_answers_alone_where_together_they_gain_nothing():
    gold = ["good", "bad"] * 30
    sure, guess = [0.99 if label == "good" else 0.01 for label in gold], [0.5] * 60
    chosen, weights, together = weighed([tried("sure", sure, gold), tried("guess", guess, gold)])
    assert [one.contender.title for one in chosen] == ["sure"] and weights == [1.0] and together is None


def test_those_that_err_on_other_rows_answer_together():
    gold = ["good", "bad"] * 30
    right = [0.9 if label == "good" else 0.1 for label in gold]
    one = [p if place % 3 else 1 - p for place, p in enumerate(right)]
    other = [p if place % 3 != 1 else 1 - p for place, p in enumerate(right)]
    chosen, weights, together = weighed([tried("one", one, gold), tried("other", other, gold)])
    assert len(chosen) == 2 and weights == pytest.approx([0.5, 0.5], abs=0.05)
    assert together < min(item.log_loss for item in chosen) - choosing.WORTH


def test_rows_count_by_their_weights():
    """A member that errs only where rows count for next to nothing answers alone."""
    gold = ["good", "bad"] * 30
    counts = [1e-9 if place % 3 == 0 else 1.0 for place in range(60)]
    right = [0.9 if label == "good" else 0.1 for label in gold]
    errs = [1 - p if place % 3 == 0 else p for place, p in enumerate(right)]
    guess = [0.5] * 60
    assert [one.contender.title for one in weighed([tried("errs", errs, gold), tried("guess", guess, gold)])[0]] != [
        "errs"
    ]
    counted = [tried("errs", errs, gold, counts), tried("guess", guess, gold, counts)]
    assert [one.contender.title for one in weighed(counted)[0]] == ["errs"]
    assert counted[0].log_loss == pytest.approx(-np.log(0.9))


def test_weights_of_rows_are_as_if_rows_stood_there_several_times():
    rng = np.random.default_rng(0)
    scores = [np.log(rng.dirichlet([1, 1, 1], 40)) for _ in range(3)]
    gold, times = rng.integers(0, 3, 40), rng.integers(1, 4, 40)
    repeated = fit_weights([one.repeat(times, 0) for one in scores], gold.repeat(times))
    assert fit_weights(scores, gold, times) == pytest.approx(repeated, abs=1e-4)


@pytest.fixture
def two_bases(monkeypatch):
    """Tiny bases in place of the bundled ones."""
    bases = {"minilm": tiny_base("bert"), "smollm2": tiny_base("llama")}
    monkeypatch.setattr("softprompt.auto.contenders.ENCODER", bases["minilm"])
    monkeypatch.setattr("softprompt.auto.contenders.CAUSAL", bases["smollm2"])
    return bases


def test_a_classifier_by_auto_answers_saves_and_comes_back(two_bases, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "WORTH", -10.0)  # together in any case
    monkeypatch.setattr(choosing, "LEAST_WEIGHT", 0.0)
    monkeypatch.setattr(choosing, "PERFECT", 2.0)
    rows = [row.values for row in tiny_rows(24)["train"]]
    texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]
    classifier = PromptClassifier(epochs=1, verbose=False).fit(texts, labels)
    assert "together" in classifier.summary_["chosen"]
    probabilities = classifier.predict_proba(texts[:5])
    assert np.allclose(probabilities.sum(1), 1)
    classifier.save(tmp_path / "model")
    again = PromptClassifier.load(tmp_path / "model", base=list(two_bases.values()))
    assert np.allclose(again.predict_proba(texts[:5]), probabilities, atol=1e-6)


def test_copies_of_two_texts_are_not_compared(two_bases):
    """Copies stay in one fold, so no training part would have two labels."""
    for texts, labels in (
        (["good film", "bad film"] * 10, ["good", "bad"] * 10),
        ([f"text {place}" for place in range(8)] + ["dup", "dup"], ["a"] * 8 + ["b", "b"]),
    ):
        classifier = PromptClassifier(epochs=1, verbose=False).fit(texts, labels)
        assert "too few rows to compare" in classifier.summary_["chosen"]


def test_settings_beside_auto_are_refused():
    with pytest.raises(ConfigError, match=r"method\.length stands beside method auto"):
        contenders_for("auto", {"name": "auto", "length": 3})


def test_a_contenders_folder_is_named_by_the_bases_last_name():
    probe, infix = contenders_for("/home/me/my bases/tiny b", "auto")
    assert (probe.folder_name, infix.folder_name) == ("probe-on-tiny b", "infix-on-tiny b")


def test_folds_make_their_share_of_the_steps_of_all_rows(two_bases, monkeypatch):
    method = make_method("infix")
    whole, half = TrainSpec().filled(method, 128), TrainSpec().filled(method, 64, 128)
    assert (whole.max_steps, half.max_steps) == (96, 48)
    assert TrainSpec(epochs=3, batch_size=8).filled(method, 12, 20).max_steps == 6  # of 9 steps, rounded up
    assert TrainSpec().filled(method, 128, 128) == whole
    steps = []

    def watched(base, task, method, out, **how):
        events = []
        done = train(base, task, method, out, **how, on_event=events.append)
        steps.append((method.spec.name, sum(event["event"] == "step" for event in events)))
        return done

    monkeypatch.setattr(trying, "train", watched)
    monkeypatch.setattr(choosing, "PERFECT", 2.0)
    monkeypatch.setattr(choosing, "WORTH", -10.0)
    monkeypatch.setattr(choosing, "LEAST_WEIGHT", 0.0)
    rows = [row.values for row in tiny_rows(32)["train"]]
    PromptClassifier(epochs=6, verbose=False).fit([row["text"] for row in rows], [row["label"] for row in rows])
    assert [count for name, count in steps if name == "infix"] == [3, 3, 6]


def test_few_rows_are_not_compared(two_bases):
    classifier = PromptClassifier(epochs=1, verbose=False).fit(["joy", "pain"], ["good", "bad"])
    assert "too few rows to compare" in classifier.summary_["chosen"]
    PromptClassifier(epochs=1, verbose=False).fit(["joy", "sun", "pain", "mud"], ["good", "good", "bad", "bad"])


@pytest.fixture
def auto_run(two_bases, tmp_path):
    """Runs on rows that are told apart by any base, in one folder."""
    path = tmp_path / "rows.csv"
    rows = [row.values for part in tiny_rows(40, 0, 0).values() for row in part]
    path.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows))
    held = {
        "base": "auto",
        "task": propose("classification", ["text"], ["bad", "good"]) | {"data": {"source": str(path)}},
        "method": "auto",
        "train": {"epochs": 1},
    }

    def run(**how):
        spec = make_run(held | how.pop("held", {}), [], "run", whole=True)
        told: list[str] = []
        task = Task.load(spec.task)
        done = auto.train_auto(spec, task, tmp_path / "run", shared.base_of, SharedRows(), notice=told.append, **how)
        return done, told

    return run


def test_rows_of_one_label_are_refused_in_one_line(two_bases, tmp_path):
    path = tmp_path / "one.csv"
    path.write_text("text,label\n" + "".join(f"text {place},bad\n" for place in range(12)))
    task = propose("classification", ["text"], ["bad", "good"]) | {"data": {"train": str(path)}}
    spec = make_run({"base": "auto", "task": task, "method": "auto"}, [], "run", whole=True)
    with pytest.raises(DataError, match="all 12 training rows have the label 'bad'"):
        auto.train_auto(spec, Task.load(spec.task), tmp_path / "run", shared.base_of, SharedRows())


def test_a_run_by_auto_trains_what_it_chose_and_goes_on_from_there(auto_run, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "WORTH", 10.0)  # one alone in any case
    done, told = auto_run(test=True)
    (weight, only), *others = done.members
    assert weight == 1 and not others and set(done.metrics) == {"dev", "test"}
    assert any("chosen: " in line for line in told)
    kept = artifacts.load(tmp_path / "run")
    assert kept.digest == artifacts.load(only.artifact).digest
    assert load_run(tmp_path / "run" / "run.yaml", []).method["name"] == only.prepared.method.spec.name
    monkeypatch.setattr(running, "compare", None)  # it is not compared again
    again, _ = auto_run()
    assert again.says == done.says and artifacts.load(tmp_path / "run").digest == kept.digest


def test_a_run_by_auto_may_leave_an_ensemble(auto_run, two_bases, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "WORTH", -10.0)
    monkeypatch.setattr(choosing, "LEAST_WEIGHT", 0.0)
    monkeypatch.setattr(choosing, "PERFECT", 2.0)
    done, _ = auto_run()
    assert len(done.members) == 3 and artifacts.is_ensemble(tmp_path / "run")
    runtime = Runtime(list(two_bases.values()))
    runtime.add("it", tmp_path / "run")
    dev = Task.load(load_run(tmp_path / "run" / "run.yaml", []).task).load_data()["dev"]
    found = runtime.evaluate("it", dev)
    assert found.estimate.value == done.metrics["dev"].estimate.value
    assert found.nll == pytest.approx(done.metrics["dev"].nll, abs=1e-5)
    monkeypatch.setattr(choosing, "WORTH", 10.0)
    alone, _ = auto_run(fresh=True)  # takes its place
    assert len(alone.members) == 1 and not artifacts.is_ensemble(tmp_path / "run")


def test_trackers_follow_what_was_chosen_and_name_no_choice(auto_run, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setattr(choosing, "WORTH", -10.0)
    monkeypatch.setattr(choosing, "LEAST_WEIGHT", 0.0)
    monkeypatch.setattr(choosing, "PERFECT", 2.0)
    asked, really = [], trying.train

    def watched(base, task, method, out=None, **how):
        asked.append((None if out is None else out.name.split("-")[0], how["train"].get("report_to")))
        return really(base, task, method, out, **how)

    monkeypatch.setattr(trying, "train", watched)
    auto_run(held={"train": {"epochs": 1, "report_to": "tensorboard"}})
    assert {told for out, told in asked if out is None} == {None}
    assert dict(pair for pair in asked if pair[0]) == {"probe": None, "infix": ["tensorboard"]}
    assert "report_to" not in (tmp_path / "run" / "run.yaml").read_text()
    monkeypatch.setattr(running, "compare", None)
    auto_run()  # goes on from the same choice


def test_a_run_by_auto_refuses_what_it_cannot_choose(auto_run, tmp_path):
    with pytest.raises(ConfigError, match="auto chooses in `softprompt train`"):
        auto_run(held={"method": {"name": "auto", "length": 4}})
    with pytest.raises(ConfigError, match="auto chooses for classifications"):
        auto_run(held={"task": "ui-strings-fr"})
    auto_run()
    with pytest.raises(TrainingError, match="made with other settings"):
        auto_run(held={"seed": 1})
    (tmp_path / "run" / "result.json").write_text("{}")
    with pytest.raises(TrainingError, match="holds a run of one method"):
        auto_run()
    with pytest.raises(ConfigError, match="auto chooses in `softprompt train`"):
        make_method("auto")


def test_names_of_the_package():
    assert set(auto.__all__) <= set(dir(auto))
