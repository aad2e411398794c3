"""Ensembles on the command line: made of two runs, measured, asked, shown."""

from __future__ import annotations

import json

import pytest
import yaml
from helpers import tiny_rows
from models import tiny_model, tiny_tokenizer
from test_cli import TASK, cli, refused

ROWS = [{**row.values, "text": f"{row.values['text']} {place}"} for place, row in enumerate(tiny_rows(60)["train"])]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a causal base and an encoder, a run on each, and the ensemble of both."""
    folder = tmp_path_factory.mktemp("ensemble")
    tiny_model("llama").save_pretrained(folder / "causal")
    tiny_tokenizer().save_pretrained(folder / "causal")
    tiny_model("bert").base_model.save_pretrained(folder / "encoder")
    tiny_tokenizer(frame="masked").save_pretrained(folder / "encoder")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "task.yaml").write_text(yaml.safe_dump(TASK))
    for base in ("causal", "encoder"):
        run = {"base": {"name": base}, "task": "task.yaml", "method": {"name": "probe"}}
        (folder / "run.yaml").write_text(yaml.safe_dump(run))
        done = cli("train", "run.yaml", "--out", f"runs/{base}", cwd=folder)
        assert done.returncode == 0, done.stderr
    done = cli("ensemble", "runs/causal", "runs/encoder", "--out", "both", "--json", "made.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("dev accuracy") == 3 and "weight 0." in done.stdout
    return folder


BOTH = ("--base", "causal", "--base", "encoder")


def test_dev_chooses_the_weights(work):
    made = json.loads((work / "made.json").read_text())
    held = json.loads((work / "both" / "ensemble.json").read_text())
    assert [one["weight"] for one in held["members"]] == made["weights"] and sum(made["weights"]) == pytest.approx(1)
    assert held["dev_rows"] == held["metrics"]["dev"]["rows"] == 12
    assert [one["name"] for one in held["members"]] == ["probe", "probe-2"]
    assert held["format_version"] == 1 and made["combine"] == "log_probs"
    best = max(one["value"] for one in made["members"])
    assert [one["artifact"] for one in made["members"]] == ["runs/causal", "runs/encoder"]
    assert made["gain"]["value"] == pytest.approx(made["metrics"]["dev"]["value"] - best)
    assert made["gain"]["over"] in ("runs/causal", "runs/encoder") and made["gain"]["rows"] == 12
    assert made["gain"]["interval"][0] < made["gain"]["value"] < made["gain"]["interval"][1]


def test_votes_and_given_weights(work):
    done = cli("ensemble", "runs/causal", "runs/encoder", "--out", "vote", "--combine", "vote", cwd=work)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("weight 0.500") == 2 and "gain over the best member on these rows, runs/" in done.stdout
    held = json.loads((work / "vote" / "ensemble.json").read_text())
    assert (held["format_version"], held["combine"], held["dev_rows"]) == (2, "vote", None)
    more = ("--combine", "probs", "--weights", "3,1", "--json")
    done = cli("ensemble", "runs/causal", "runs/encoder", "--out", "mean", *more, cwd=work)
    assert json.loads(done.stdout)["weights"] == [0.75, 0.25], done.stderr
    (work / "one.jsonl").write_text('{"text": "joy"}\n')
    done = cli("predict", "vote", "--input", "one.jsonl", *BOTH, cwd=work)
    assert json.loads(done.stdout)["agreement"] in (0.5, 1.0)
    assert "of equal ones" in cli("inspect", "vote", cwd=work).stdout


@pytest.mark.parametrize("weights", ["1", "1,2,3", "1,-1", "0,0", "nan,1", "inf,1", "1;2", "", "1e308,1e308"])
def test_weights_that_are_none_are_refused(work, weights):
    done = cli("ensemble", "runs/causal", "runs/encoder", "--out", "none", f"--weights={weights}", cwd=work)
    refused(done, "--weights", "2 numbers")
    assert not (work / "none").exists()


def test_eval_measures_it(work):
    done = cli("eval", "both", *BOTH, "--data", "rows.jsonl", "--json", "score.json", cwd=work)
    assert done.returncode == 0, done.stderr
    score = json.loads((work / "score.json").read_text())
    assert score["rows"] == len(ROWS) and [one["name"] for one in score["members"]] == ["probe", "probe-2"]
    best = max(one["value"] for one in score["members"])
    assert score["gain"]["value"] == pytest.approx(score["value"] - best) and score["gain"]["rows"] == len(ROWS)
    assert "member probe-2: accuracy" in done.stdout and "gain over the best member on these rows, probe" in done.stdout
    refused(cli("eval", "both", *BOTH, cwd=work), "--data")


def test_a_base_of_another_kind_is_told_to_be_another_base(work):
    """The run's own `kind` says nothing of a base that the user names."""
    (work / "joy.jsonl").write_text('{"text": "joy"}\n')
    line = refused(cli("predict", "runs/encoder", "--base", "causal", "--input", "joy.jsonl", cwd=work), "encoder")
    assert "base.kind" not in line and "causal" in line


def test_predict_answers_by_it_beside_a_member(work):
    """An artifact on another base is answered by its own: each one's base is loaded."""
    asked = [{"text": "joy", "artifact": name} for name in ("both", "causal", "encoder")]
    (work / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    folders = ("both", "runs/causal", "runs/encoder")
    done = cli("predict", *folders, "--input", "asked.jsonl", *BOTH, cwd=work)
    assert done.returncode == 0, done.stderr
    both, *members = [json.loads(line)["probabilities"]["good"] for line in done.stdout.splitlines()]
    assert min(members) - 1e-6 <= both <= max(members) + 1e-6
    done = cli("predict", "runs/causal", "runs/encoder", "--input", "asked.jsonl", cwd=work)
    refused(done, "'both' is not loaded")
    (work / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked[1:]))
    done = cli("predict", "runs/causal", "runs/encoder", "--input", "two.jsonl", cwd=work)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["probabilities"]["good"] for line in done.stdout.splitlines()] == pytest.approx(members)


def test_bases_are_the_users_or_bundled(work):
    """What an ensemble's folder names is for people: no base is loaded by it unless it is a bundled one."""
    refused(cli("eval", "both", "--data", "rows.jsonl", cwd=work), "made on base 'causal'", "--base")
    done = cli("eval", "both", "--base", "causal", "--data", "rows.jsonl", cwd=work)
    refused(done, "belongs to base 'encoder'")


def test_inspect_shows_it(work):
    done = cli("inspect", "both", cwd=work)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("probe-2, weight", "chosen on 12 dev rows", "dev accuracy"))
    shown = json.loads(cli("inspect", "both", "--manifest", cwd=work).stdout)
    assert shown == json.loads((work / "both" / "ensemble.json").read_text())
    done = cli("inspect", "both", "--html", "both.html", cwd=work)
    assert done.returncode == 0, done.stderr
    page = (work / "both.html").read_text("utf-8")
    assert "ensemble of 2 members</h1>" in page
    assert all(word in page for word in ("probe-2, weight", "chosen on 12 dev rows", "dev accuracy", "ensemble_sha256"))


def test_what_cannot_go_together_is_refused(work):
    refused(cli("ensemble", "runs/causal", "--out", "one", cwd=work), "at least two members")
    refused(cli("ensemble", "both", "runs/causal", "--out", "more", *BOTH, cwd=work), "is an ensemble itself")
    refused(cli("ensemble", "runs/causal", "runs/encoder", "--out", "runs", cwd=work), "choose another folder")
    refused(cli("merge", "both", "--out", "merged", cwd=work), "is an ensemble of artifacts")
    assert not (work / "one").exists() and not (work / "more").exists()
