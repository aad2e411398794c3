"""SetFit as a row of the comparison: what is asked, what comes back, and what goes wrong said in one line."""

from __future__ import annotations

import importlib.util
import io
import json
import random
import sys

import numpy as np
import pytest
from models import tiny_model, tiny_tokenizer

from softprompt.benchmarks.compare import peers
from softprompt.benchmarks.compare.peers import SetFitRequest, ask, run_setfit
from softprompt.errors import ConfigError, MissingExtraError, SoftpromptError

installed = importlib.util.find_spec("setfit") is not None
needs_setfit = pytest.mark.skipif(not installed, reason="needs setfit: pip install 'softprompt[setfit]'")
LABELS = ["good", "bad"]


def rows(count, seed=0):
    """Texts whose words say the label."""
    rng, words = random.Random(seed), {"good": ["joy", "sun", "gift"], "bad": ["pain", "rain", "mud"]}
    pairs = [(LABELS[k % 2], k) for k in range(count)]
    return [
        {"text": f"{rng.choice(words[label])} {rng.choice(words[label])} {k}", "label": label} for label, k in pairs
    ]


def request(**changes):
    return {"train": rows(8), "dev": rows(4, 1), "tests": {"t": rows(6, 2)}, "labels": LABELS, "threads": 1, **changes}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"labels": ["good", "poor"]}, "train: label 'bad' is not one of labels (good, poor)"),
        ({"labels": ["good", "good"]}, "stands twice"),
        ({"train": rows(8)[::2]}, "all rows have one label"),
        ({"tests": {"t": [{"text": "x", "label": "so"}]}}, "t: label 'so'"),
        ({"epoch": 2}, "did you mean 'epochs'"),
        ({"lr": 0}, "lr"),
        ({"train": []}, "train"),
    ],
)
def test_requests_that_cannot_be_used(changes, words):
    with pytest.raises(ConfigError) as caught:
        run_setfit(request(**changes))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"the row setfit needs: pip install 'softprompt\[setfit\]'"):
        run_setfit(request())


def script(folder, monkeypatch, code):
    """A module `side` that a process can run."""
    (folder / "side.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    return "side"


def test_the_other_process_answers_offline(tmp_path, monkeypatch):
    code = (
        "import json, os, sys\nprint(json.dumps({'asked': json.load(sys.stdin), 'hub': os.environ['HF_HUB_OFFLINE']}))"
    )
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert ask(script(tmp_path, monkeypatch, code), {"a": "é"}) == {"asked": {"a": "é"}, "hub": "1"}


@pytest.mark.parametrize(
    "code, words",
    [
        ('print(\'{"error": "no such base"}\'); raise SystemExit(1)', "side: no such base"),
        ("raise ValueError('broken')", "side ended with exit code 1 and no answer: ValueError: broken"),
        ("raise SystemExit(3)", "exit code 3 and no answer: it said nothing"),
        ("print('loading ...')", "exit code 0 and no answer"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
    ],
)
def test_errors_of_the_other_process_are_one_line(tmp_path, monkeypatch, code, words):
    with pytest.raises(SoftpromptError) as caught:
        ask(script(tmp_path, monkeypatch, code), {})
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_an_error_is_an_answer_too(monkeypatch, capsys):
    """Of the side itself: what a library prints stays out of the answer."""
    from softprompt.benchmarks.compare.peers import setfit_side

    def fails(asked):
        print("downloading …")
        raise OSError("no\nspace left")

    monkeypatch.setattr(setfit_side, "answer", fails)
    for text, words in (
        (json.dumps(request()), "no space left"),
        ("{", "Expecting property name"),
        (json.dumps(request(lr=-1)), "lr"),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        monkeypatch.setattr(sys, "stdout", out := io.StringIO())
        assert setfit_side.main() == 1
        assert words in json.loads(out.getvalue())["error"] and out.getvalue().count("\n") == 1
        monkeypatch.undo()
        monkeypatch.setattr(setfit_side, "answer", fails)


@pytest.mark.parametrize(
    "changes, pairs, steps",
    [
        ({}, 40, None),  # of 4 + 4 rows: 20 pairs alike, 16 unlike
        ({"sampling": "undersampling"}, 32, None),
        ({"sampling": "unique"}, 36, None),
        ({"iterations": 20}, 320, None),
        ({"iterations": 20, "max_steps": 7}, 320, 7),
        ({"max_steps": 2}, 40, 2),
        ({"max_steps": 3}, 40, None),  # ⌈40 / 16⌉
        ({"max_steps": 5, "epochs": 2}, 40, 5),
        ({"max_steps": None, "iterations": 200}, 3200, None),
        ({"share": 1 / 3}, 40, 1),  # of the 3 steps that it makes, not of the 60 that it may
        ({"share": 0.5, "max_steps": None, "iterations": 200}, 3200, 100),
    ],
)
def test_how_long_it_trains(changes, pairs, steps):
    from softprompt.benchmarks.compare.peers.setfit_side import length_of_training

    assert length_of_training(SetFitRequest(**request(**changes))) == (pairs, steps)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("setfit") / "base"
    tiny_model("bert").base_model.save_pretrained(folder)
    tiny_tokenizer(frame="masked").save_pretrained(folder)
    return str(folder)


@needs_setfit
def test_it_trains_a_tiny_encoder_in_this_process(encoder):
    """(In one of its own: `full`, below.)"""
    from softprompt.benchmarks.compare.peers.setfit_side import answer

    asked = request(base=encoder, lr=1e-3, seed=3, max_length=8, max_steps=1)
    found = answer(SetFitRequest(**asked))
    assert set(found["predicted"]) == {"dev", "t"} and set(found["predicted"]["t"]) <= set(LABELS)
    chances = np.array(found["probabilities"]["t"])
    assert chances.shape == (6, len(LABELS)) and np.allclose(chances.sum(axis=1), 1)
    assert [LABELS[k] for k in chances.argmax(axis=1)] == found["predicted"]["t"]
    assert (found["pairs_by_default"], found["steps"], found["truncated"]) == (40, 1, 8)
    body = sum(w.numel() for name, w in tiny_model("bert").base_model.named_parameters() if "pooler" not in name)
    assert found["trained"] == found["stored"] == body + 64 + 1


@needs_setfit
@pytest.mark.full  # above: in the test's own process
def test_it_trains_a_tiny_encoder(encoder, tmp_path, monkeypatch):
    """A real process; the same seed gives the same answers."""
    monkeypatch.chdir(tmp_path)
    asked = request(base=encoder, lr=1e-3, seed=3, max_length=8)
    first, again = run_setfit(asked), run_setfit(asked)
    assert first["nll"] == again["nll"] and first["predicted"] == again["predicted"]
    assert set(first["predicted"]) == {"dev", "t"} and len(first["predicted"]["t"]) == 6
    assert set(first["predicted"]["t"]) <= set(LABELS)
    assert (first["pairs"], first["pairs_by_default"], first["steps"]) == (40, 40, 3)
    model = tiny_model("bert").base_model
    body = sum(weight.numel() for name, weight in model.named_parameters() if "pooler" not in name)
    assert (
        first["trained"] == first["stored"] == body + model.config.hidden_size + 1
    )  # logistic regression of two labels
    assert first["artifact_bytes"] > 4 * body and first["peak_rss"] > 0 and first["peak_cuda"] is None
    assert all(first["seconds"][name] > 0 for name in ("load", "train", "test"))
    assert first["versions"]["setfit"].startswith("1.")
    assert first["truncated"] == 8 and not list(tmp_path.iterdir())  # some ten bytes each; nothing is left behind
    cut = run_setfit({**asked, "max_steps": 1, "dev": [], "seed": 4})
    assert (cut["pairs"], cut["steps"]) == (16, 1) and set(cut["predicted"]) == {"t"}


@needs_setfit
@pytest.mark.full  # what the other process does with an error is tested above, within this one
def test_what_is_no_encoder_is_refused_in_one_line(tmp_path):
    with pytest.raises(SoftpromptError) as caught:
        run_setfit(request(base=str(tmp_path / "nothing")))
    assert "setfit_side" in str(caught.value) and "\n" not in str(caught.value)


@needs_setfit
@pytest.mark.full  # above: a tiny encoder, made-up rows
@pytest.mark.real
def test_it_learns_real_reviews_from_sixteen_rows():
    from softprompt.tasks import Task

    found = Task.load("movie-reviews").load_data()
    some = {
        name: [{key: row.values[key] for key in ("text", "label")} for row in found[name][:count]]
        for name, count in (("train", 16), ("test", 100))
    }
    labels = ["positive", "negative"]
    answer = run_setfit({"train": some["train"], "tests": {"movie-reviews": some["test"]}, "labels": labels})
    right = [a == row["label"] for a, row in zip(answer["predicted"]["movie-reviews"], some["test"], strict=True)]
    assert sum(right) >= 53 and answer["nll"]["movie-reviews"] < 0.6931  # 62 of 100 expected; ln 2 is who does not know
    assert answer["steps"] == 9 and answer["trained"] == 22_565_761
    assert sum(answer["seconds"].values()) < 120


@needs_setfit
@pytest.mark.real
def test_the_body_is_all_minilm_as_it_is_published():
    """Mean over live tokens at length one: by hand from the model's last states."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from softprompt.base import bundled
    from softprompt.benchmarks.compare.peers.setfit_side import load_body

    texts = ["A quiet triumph.", "Dull, and far too long for what little it has to say."]
    folder = bundled.get("minilm")
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
    mean = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1))
    body = load_body("minilm", 256)
    assert body.max_seq_length == 256
    assert torch.allclose(body.encode(texts, convert_to_tensor=True).cpu(), mean, atol=1e-5)


@needs_setfit
@pytest.mark.parametrize("real", [False, pytest.param(True, marks=[pytest.mark.full, pytest.mark.real])])
def test_a_row_of_the_comparison(tmp_path, monkeypatch, encoder, real):
    """The same rows as the others have, a share of the steps in the search, and a record as theirs."""
    from helpers import tiny_rows

    from softprompt.benchmarks.compare.context import RunContext
    from softprompt.benchmarks.compare.execute import execute
    from softprompt.benchmarks.compare.peers import rows  # noqa: F401
    from softprompt.benchmarks.compare.peers.setfit_side import answer
    from softprompt.benchmarks.compare.runs import Run, cells_of, next_runs
    from softprompt.benchmarks.compare.suite import SuiteSpec
    from softprompt.config import parse

    lines = [
        {**row.values, "text": f"{row.values['text']} {k}"}
        for part in tiny_rows().values()
        for k, row in enumerate(part)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    task = {
        "name": "tiny",
        "template": {"input": "{{ text }}", "answer": "{{ answer }}"},
        "verbalizer": ["good", "bad"],
    }
    task["data"] = {"source": str(tmp_path / "rows.jsonl")}
    contender = {"kind": "setfit", "method": {"max_steps": 3, **({} if real else {"base": encoder})}}
    values = {"name": "x", "tasks": [task], "sizes": [8], "dev": 4, "test": 6, "seeds": [0], "contenders": [contender]}
    suite = parse(SuiteSpec, {**values, "search": {"trials": 2, "halving": 2}, "without": ["lora"]}, "suite")
    cell = next(cell for cell in cells_of(suite) if cell.place.contender == "setfit")
    context, asked = RunContext(suite.cache), []
    with monkeypatch.context() as patch:
        patch.setattr(peers.rows, "run_setfit", lambda request: asked.append(request) or run_setfit({}))
        refused = [execute(run, context, False)[0] for run in next_runs(cell, {})]
    assert all(record.status == "failed" and "setfit: missing key" in record.reason for record in refused)
    assert len({request["lr"] for request in asked}) == 2 and {request["share"] for request in asked} == {0.5}
    if not real:  # a tiny base, in this process
        monkeypatch.setattr(peers.rows, "run_setfit", lambda request: answer(SetFitRequest(**request)))
    final, rows_of_test = execute(Run(cell, "final", 0, 2e-5), context, False)
    assert final.status == "done" and final.steps == 3, final.reason
    assert final.tests["tiny"].digest in rows_of_test and len(final.tests["tiny"].predicted) == 6
    least = 20_000_000 if real else 50_000
    assert final.trained > least and final.artifact_bytes > 4 * least and final.seconds.train > 0
