"""Artifacts that answer together: weights, the folder that holds them, serving beside others, what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import close, scores_of, tiny_rows, tiny_task
from models import tiny_base
from scipy.special import log_softmax
from test_bidirectional import encoder

from softprompt import artifact as artifacts
from softprompt.ensemble import combine, fit_weights, save_ensemble
from softprompt.errors import ArtifactError, DataError
from softprompt.runtime import Runtime
from softprompt.storage import digest_of
from softprompt.tasks import Task
from softprompt.training import train

WEIGHTS = (0.3, 0.7)
TEXTS = ["joy sun gift", "rain", "hope", "pain mud", "sun rain"]
TASK = tiny_task()


@pytest.fixture(scope="module")
def bases():
    return [tiny_base(), encoder()]


@pytest.fixture(scope="module")
def members(bases, tmp_path_factory):
    """Folders of a causal base's and an encoder's artifact of one task, whose labels stand in another order."""
    folder = tmp_path_factory.mktemp("members")
    other = tiny_task(verbalizer={"bad": "bad", "good": "good"})
    for base, task, name, method in (
        (bases[0], TASK, "a", {"name": "soft", "length": 3}),
        (bases[1], other, "b", "probe"),
    ):
        rows = tiny_rows(24, seed=len(name))
        train(base, task, method, folder / name, train={"max_steps": 2} if name == "a" else {}, rows=rows)
    return [folder / "a", folder / "b"]


@pytest.fixture
def saved(members, tmp_path):
    save_ensemble(tmp_path / "both", list(zip(members, WEIGHTS, strict=True)))
    return tmp_path / "both"


def ask(runtime, name, texts=TEXTS):
    """Probabilities by label, in one order, [B, K]."""
    found = runtime.predict([{"text": text} for text in texts], name)
    assert all(one.label == max(one.probabilities, key=one.probabilities.get) for one in found)
    return torch.tensor([[one.probabilities[label] for label in ("good", "bad")] for one in found])


def by_hand(runtime, *names):
    """The same of members that are loaded one by one."""
    logs = [weight * ask(runtime, name).double().log() for name, weight in zip(names, WEIGHTS, strict=True)]
    return sum(logs).softmax(-1).float()


def test_it_answers_by_its_members_mean_log_probability(bases, members, saved):
    runtime = Runtime(bases)
    for name, folder in (("a", members[0]), ("b", members[1]), ("both", saved)):
        runtime.add(name, folder)
    close(ask(runtime, "both"), by_hand(runtime, "a", "b"), 1e-6)
    assert runtime.prompts("both") == (runtime.get("a"), runtime.get("b"))  # one content, compiled once
    with pytest.raises(DataError, match="an ensemble of 2"):
        runtime.get("both")
    with pytest.raises(DataError, match="chooses its answers"):
        runtime.stream({"text": "joy"}, "both")


def test_rows_of_ensembles_and_artifacts_go_in_one_batch(bases, members, saved):
    runtime = Runtime(bases)
    runtime.add("a", members[0])
    runtime.add("both", saved)
    alone = {name: ask(runtime, name) for name in ("a", "both")}
    names = ["both", "a", "a", "both", "both"]
    found = runtime.predict([{"text": text, "artifact": name} for text, name in zip(TEXTS, names, strict=True)])
    assert [one.artifact for one in found] == names
    for place, (name, one) in enumerate(zip(names, found, strict=True)):
        close(torch.tensor([one.probabilities["good"], one.probabilities["bad"]]), alone[name][place], 1e-5)


def test_it_is_measured_like_an_artifact(bases, saved):
    runtime, rows = Runtime(bases), tiny_rows()["test"]
    runtime.add("both", saved)
    found = runtime.evaluate("both", rows)
    probabilities = ask(runtime, "both", [row.values["text"] for row in rows])
    close(scores_of(found.outcomes).exp(), probabilities, 1e-5)
    right = [("good", "bad").index(row.values["label"]) for row in rows]
    assert found.estimate.value == pytest.approx(float((probabilities.argmax(1) == torch.tensor(right)).float().mean()))
    assert found.nll == pytest.approx(-float(probabilities[range(len(rows)), right].log().mean()), abs=1e-5)


def test_it_swaps_and_goes_like_an_artifact(bases, members, saved):
    runtime = Runtime(bases)
    runtime.add("it", saved)
    both = ask(runtime, "it")
    runtime.add("it", members[1])
    assert not torch.equal(ask(runtime, "it"), both) and len(runtime._compiled) == 1
    runtime.add("it", saved)
    assert torch.equal(ask(runtime, "it"), both)
    runtime.remove("it")
    assert runtime.names == [] and runtime._compiled == {}


def test_bases_can_come_one_by_one_and_a_missing_one_is_named(bases, members, saved):
    runtime = Runtime(bases[0])
    runtime.add("a", members[0])
    with pytest.raises(ArtifactError, match="belongs to base 'tiny-bert-encoder'"):
        runtime.add("both", saved)
    with pytest.raises(ArtifactError, match=r"not loaded .* --base"):
        Runtime([bases[0], tiny_base("gpt2")]).add("both", saved)
    with pytest.raises(DataError, match="holds no base"):
        Runtime([]).add("task", TASK)
    assert runtime.names == ["a"]
    runtime.add_base(bases[1])
    runtime.add("both", saved)
    assert runtime.names == ["a", "both"]


def test_equal_arguments_give_equal_bytes_and_an_earlier_one_is_replaced(members, saved, tmp_path):
    pairs = list(zip(members, WEIGHTS, strict=True))
    again = save_ensemble(tmp_path / "again", pairs)
    files = sorted(file.relative_to(saved) for file in saved.rglob("*") if file.is_file())
    assert files and all((saved / file).read_bytes() == (again.path / file).read_bytes() for file in files)
    assert artifacts.load_ensemble(saved).digest == again.digest and again.size > 1000
    save_ensemble(saved, [(members[0], 0.5), (members[1], 0.5)])
    assert artifacts.load_ensemble(saved).manifest.weights == [0.5, 0.5]
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_the_card_says_how_to_load_it(bases, saved):
    card = (saved / "README.md").read_text()
    assert all(repr(base.name).replace("'", '"') in card for base in bases)
    assert "0.300" in card and "Not measured." in card and "sp.Runtime([" in card


@pytest.mark.parametrize("weights", [(0.5, 0.6), (-0.1, 1.1), (float("nan"), 1.0)])
def test_weights_are_shares(members, tmp_path, weights):
    with pytest.raises(ArtifactError, match="weight"):
        save_ensemble(tmp_path / "it", list(zip(members, weights, strict=True)))
    assert not (tmp_path / "it").exists()


def test_other_peoples_files_are_not_replaced(members, saved, tmp_path):
    pairs = list(zip(members, WEIGHTS, strict=True))
    with pytest.raises(ArtifactError, match="holds an artifact"):
        save_ensemble(members[1] / "artifact", pairs)
    (saved / "members" / "soft" / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"notes\.txt"):
        save_ensemble(saved, pairs)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArtifactError, match="choose another folder"):
        save_ensemble(tmp_path / "file", pairs)


def test_members_answer_one_task(bases, members, tmp_path):
    for changes, problem in (
        ({"verbalizer": {"good": "good", "mad": "mad"}}, "labels"),
        ({"template": {"input": "{{ note }}"}}, "fields"),
    ):
        task = tiny_task(**changes)
        label = list(task.labels)
        rows = {
            split: [
                type(row)({**row.values, "note": "x " + row.values["text"], "label": label[place % 2]}, row.where)
                for place, row in enumerate(some)
            ]
            for split, some in tiny_rows().items()
        }
        train(bases[1], task, "probe", tmp_path / problem, rows=rows)
        with pytest.raises(ArtifactError, match=f"has the {problem} .* one task"):
            save_ensemble(tmp_path / "it", [(members[0], 0.5), (tmp_path / problem, 0.5)])


def rewrite(folder, change):
    """Change `ensemble.json` as somebody would who knows its digest."""
    data = json.loads((folder / "ensemble.json").read_text())
    change(data)
    del data["ensemble_sha256"]
    (folder / "ensemble.json").write_text(json.dumps({**data, "ensemble_sha256": digest_of(data)}))


def out_of_it(folder):
    shutil.move(folder / "members" / "soft", folder.parent / "soft")
    rewrite(folder, lambda data: data["members"][0].update(name="../../soft"))


def linked(folder):
    shutil.move(folder / "members" / "soft", folder.parent / "soft")
    (folder / "members" / "soft").symlink_to(folder.parent / "soft")


def other_weight(folder):
    text = (folder / "ensemble.json").read_text()
    (folder / "ensemble.json").write_text(text.replace("0.3", "0.4").replace("0.7", "0.6"))


def changed_member(folder):
    file = folder / "members" / "probe" / "manifest.json"
    file.write_text(file.read_text() + " ")


HOSTILE = {
    "a name that leads out": (out_of_it, "name"),
    "a link that leads out": (linked, "leads out"),
    "a changed weight": (other_weight, "was changed after it was written"),
    "a changed member": (changed_member, "the member was changed"),
    "a missing member": (lambda folder: shutil.rmtree(folder / "members" / "probe"), "no such file"),
    "one more member": (
        lambda folder: shutil.copytree(folder / "members" / "probe", folder / "members" / "more"),
        "'more', which ensemble.json does not name",
    ),
    "weights beyond one": (lambda f: rewrite(f, lambda data: data["members"][0].update(weight=0.9)), "sum is 1.6"),
    "one member": (lambda f: rewrite(f, lambda data: data["members"].pop()), "members"),
    "one name twice": (
        lambda f: rewrite(f, lambda data: data["members"][1].update(name="soft")),
        "two members have the same name",
    ),
    "another base": (
        lambda f: rewrite(f, lambda data: data["members"][1]["base"].update(digest="0" * 64)),
        "not of the base",
    ),
    "a newer format": (lambda f: rewrite(f, lambda data: data.update(format_version=3)), "format version 3"),
    "an unknown key": (lambda f: rewrite(f, lambda data: data.update(code="import os")), "code"),
    "no JSON": (lambda f: (f / "ensemble.json").write_text("{"), "not valid JSON"),
    "a large file": (lambda f: (f / "ensemble.json").write_text(" " * 2_000_000), "expected at most"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_was_changed_is_refused_in_one_line(bases, saved, name):
    change, problem = HOSTILE[name]
    change(saved)
    with pytest.raises(ArtifactError, match=problem) as error:
        Runtime(bases).add("it", saved)
    assert "\n" not in str(error.value)


def test_an_ensemble_is_no_artifact(saved):
    with pytest.raises(ArtifactError, match="is an ensemble of artifacts"):
        artifacts.load(saved)


def made_up(rows, skill, seed):
    """Log-probabilities [n, 3] of a member that knows so much of the labels, which are the rows' numbers modulo 3."""
    logits = np.random.default_rng(seed).normal(size=(rows, 3))
    logits[np.arange(rows), np.arange(rows) % 3] += skill
    return log_softmax(logits, axis=1)


def test_weights_have_the_least_loss_on_many_rows():
    rows = 4000
    gold, members = np.arange(rows) % 3, [made_up(rows, 2, 0), made_up(rows, 1, 1)]

    def loss(weight):
        return -combine(members, [weight, 1 - weight])[np.arange(rows), gold].mean()

    best = min(np.linspace(0, 1, 101), key=loss)
    weights = fit_weights(members, gold)
    assert weights[0] == pytest.approx(best, abs=0.03) and sum(weights) == pytest.approx(1)
    assert weights[0] > 0.55 and loss(weights[0]) <= loss(0.5)


def test_few_rows_leave_the_weights_near_equal():
    good, bad = made_up(6, 6, 0), made_up(6, -6, 1)
    few = fit_weights([good, bad], np.arange(6) % 3)
    many = fit_weights([np.tile(good, (100, 1)), np.tile(bad, (100, 1))], np.arange(600) % 3)
    assert 0.5 < few[0] < many[0] and many[0] > 0.99


def test_three_members_and_certainty_are_weighed():
    sure = np.array([[0.0, -np.inf, -np.inf]] * 9)
    weights = fit_weights([made_up(9, 2, 0), made_up(9, 2, 1), sure], np.zeros(9, dtype=int))
    assert len(weights) == 3 and sum(weights) == pytest.approx(1) and min(weights) >= 0
    close(torch.tensor(combine([sure, made_up(9, 1, 0)], [0.0, 1.0])), torch.tensor(made_up(9, 1, 0)))


@pytest.mark.parametrize("members", [[], [np.zeros((3, 2))], [np.zeros((3, 2)), np.zeros((4, 2))], [np.zeros(3)] * 2])
def test_weights_need_members_of_one_shape(members):
    with pytest.raises(DataError, match="of two members or more"):
        fit_weights(members, [0, 1, 0])


def test_a_task_that_is_taken_as_it_is_runs_on_the_first_base(bases):
    runtime = Runtime(bases)
    runtime.add("bare", Task.load(TASK.spec.model_dump()))
    assert runtime.get("bare").base is bases[0] is runtime.base
