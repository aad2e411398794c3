"""Pruning: which learned tokens matter, what is left without the others, and training it on."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from helpers import tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer

from softprompt import artifact as artifacts
from softprompt.answers import evaluate
from softprompt.base import Base
from softprompt.base.attention import ALWAYS
from softprompt.engine import Engine, EngineRow, Learned, Past, run, score
from softprompt.errors import ArtifactError, ConfigError
from softprompt.methods import make_method
from softprompt.training import prepare, train
from softprompt.training.prune import importance, keep, prune

ASKED = {"instruction": "Good or bad? ", "input": "Text: {{ text }}", "question": "\nWhich?", "cue": "\nIt is:"}
TRAIN = {"epochs": 4, "batch_size": 8, "lr": 0.05}
KINDS = [
    {"name": "soft", "length": 5},
    {"name": "prefix", "length": 5},
    pytest.param({"name": "prefix", "length": 5, "layers": "1-"}, marks=pytest.mark.full),
    {"name": "infix", "length": 5},
    pytest.param({"name": "infix", "length": 5, "form": "embeddings"}, marks=pytest.mark.full),
    {"name": "p_tuning", "length": 5, "hidden": 8},
]


def name_of(method):
    return "-".join(str(value) for value in method.values())


@pytest.fixture(params=KINDS, ids=name_of)
def kind(request):
    return request.param


def trained(kind, out=None, base=None):
    return train(
        base or tiny_base(),
        tiny_task(template=ASKED, scoring={"over": "vocabulary"}),
        kind,
        out,
        train=TRAIN,
        rows=tiny_rows(),
    )


def test_importance_is_what_scaling_a_token_does_to_the_loss(kind):
    """|∂L/∂m| against a central difference in m, token by token, mean over rows."""
    ready = trained(kind).prepared
    engine, method = ready.engine, make_method(ready.method.spec.model_dump(mode="json"))
    method.restore(ready.method.export(), ready.base)
    rows = ready.splits["train"][:3]
    found = importance(engine, method, rows)
    engine = Engine(
        ready.base, replace(engine.plan, first_layer=0), engine.prefix_ids, engine.cue, question=engine.question
    )
    step = 1e-2
    for token in range(5):
        slopes = []
        for row in rows:
            losses = []
            for sign in (1, -1):
                value = method.value.detach().clone()
                value[..., token, :] *= 1 + sign * step
                with torch.no_grad():
                    loss, tokens = engine.loss([row], Learned({"prompt": value}))
                losses.append(loss.item() / tokens)
            slopes.append(abs(losses[0] - losses[1]) / (2 * step))
        assert found[token].item() == pytest.approx(sum(slopes) / len(slopes), rel=0.1, abs=2e-3)


def test_a_token_that_does_nothing_is_the_first_to_go():
    """Values and keys of 0 give nothing whatever they are multiplied by."""
    ready = trained({"name": "infix", "length": 5}).prepared
    with torch.no_grad():
        ready.method.value[..., 2, :] = 0
    found = importance(ready.engine, ready.method, ready.splits["train"][:4])
    assert found[2] == 0 and found.argmin() == 2 and (found >= 0).all()


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_a_pruned_prefix_is_the_prefix_with_tokens_hidden(family):
    """The text sees what is kept at the distance at which it saw it (in GPT-2, whose keys hold no position, it cannot)."""
    base = tiny_base(family)
    ready = trained({"name": "prefix", "length": 5}, base=base).prepared
    kept = [0, 3]
    smaller = keep(base, ready.method, kept)
    assert smaller.length == 2 and smaller.spec.length == 2
    small = prepare(base, tiny_task(template=ASKED, scoring={"over": "vocabulary"}), smaller, rows=tiny_rows())
    example = small.splits["dev"][0]
    own = small.engine.row(example, small.engine.shared_prefix(smaller.learned()), {})
    found = score(run(base, [own], record=True), [example.candidates])[0]
    value = ready.method.value.detach()[..., kept, :]
    hidden = Past(value.unsqueeze(2).unbind(0), torch.full((2,), ALWAYS), 5)
    ids = (*ready.bound.prefix_ids, *example.text, *ready.bound.behind)
    want = score(run(base, [EngineRow(hidden, (), (ids,))], record=True), [example.candidates])[0]
    if family == "gpt2":
        assert torch.equal(smaller.value.detach(), value)
    else:
        assert torch.allclose(found, want, atol=1e-4)


def test_lengths_are_saved_measured_and_trained_on(kind, tmp_path):
    base, rows = tiny_base(), tiny_rows()
    task = tiny_task(template=ASKED, scoring={"over": "vocabulary"})
    done = trained(kind, tmp_path / "run")
    held = artifacts.load(tmp_path / "run")
    report = prune(base, task, held, [2, 4], tmp_path / "pruned", rows=rows, train={"lr": 0.02}, importance_rows=6)
    assert [one.length for one in report.lengths] == [5, 4, 2]
    assert report.lengths[0].dev == done.metrics["dev"].estimate
    order = torch.tensor(report.importance).argsort(descending=True, stable=True).tolist()
    for one in report.lengths[1:]:
        assert one.kept == sorted(order[: one.length])
        again = artifacts.load(one.artifact)
        method = make_method(again.manifest.method)
        method.restore(again.tensors, base)
        ready = prepare(base, task, method, rows=rows)
        assert evaluate(ready, ready.splits["dev"]).estimate == one.dev
        start = artifacts.load(tmp_path / "pruned" / str(one.length) / "start")
        assert start.manifest.layout.length == one.length
        assert start.manifest.metrics["dev"].value == one.start.value
        whole = make_method(held.manifest.method)
        whole.restore(held.tensors, base)
        cut = make_method(start.manifest.method)
        cut.restore(start.tensors, base)
        if cut.stores == "embeddings" or not cut.positions:  # a prefix's keys are rotated
            assert torch.equal(cut.value, whole.value[..., one.kept, :])
    written = json.loads((tmp_path / "pruned/prune.json").read_text())
    assert written["importance"] == report.importance and len(written["lengths"]) == 3
    assert str(tmp_path) not in json.dumps(written)


def test_training_on_starts_from_what_is_kept(kind, tmp_path):
    """The first step's loss is that of the kept tokens, also behind an encoder (p_tuning)."""
    base, task, rows = tiny_base(), tiny_task(scoring={"over": "vocabulary"}), tiny_rows(dev=4)
    train(base, task, kind, tmp_path / "run", train=TRAIN, rows=rows)
    settings = {"epochs": 1, "batch_size": 24, "lr": 1e-9}
    held = artifacts.load(tmp_path / "run")
    prune(base, task, held, [3], tmp_path / "pruned", rows=rows, train=settings, importance_rows=2)
    start = artifacts.load(tmp_path / "pruned/3/start")
    method = make_method(start.manifest.method)
    method.restore(start.tensors, base)
    ready = prepare(base, task, method, rows=rows)
    with torch.no_grad():
        loss, tokens = ready.engine.loss(ready.splits["train"], method.learned())
    events = [json.loads(line) for line in (tmp_path / "pruned/3/events.jsonl").read_text().splitlines()]
    first = next(event["loss"] for event in events if event["event"] == "step")
    assert first == pytest.approx(loss.item() / tokens, rel=1e-4)


def test_texts_are_encoded_once_for_all_lengths(tmp_path, monkeypatch):
    from softprompt.engine.cache import RowCache

    trained({"name": "infix", "length": 5}, tmp_path / "run")
    held, put, seen = artifacts.load(tmp_path / "run"), RowCache.put, []

    def counted(self, ids, value):
        seen.append(ids)
        put(self, ids, value)

    monkeypatch.setattr(RowCache, "put", counted)
    prune(
        tiny_base(),
        tiny_task(scoring={"over": "vocabulary"}),
        held,
        [1, 2, 3],
        tmp_path / "out",
        rows=tiny_rows(),
        importance_rows=2,
    )
    assert len(seen) == len(set(seen)) == 36  # training and dev rows


def test_what_cannot_be_pruned_is_said_in_one_line(tmp_path):
    base, task, rows = tiny_base(), tiny_task(scoring={"over": "vocabulary"}), tiny_rows()
    train(base, task, "probe", tmp_path / "probe", rows=rows)
    with pytest.raises(ConfigError, match="'probe' has no learned tokens"):
        prune(base, task, artifacts.load(tmp_path / "probe"), [2], tmp_path / "out", rows=rows)
    trained({"name": "soft", "length": 5}, tmp_path / "soft")
    held = artifacts.load(tmp_path / "soft")
    for wrong in (0, 5, 9):
        with pytest.raises(ConfigError, match=f"cannot prune to {wrong}: the artifact has 5 learned tokens"):
            prune(base, task, held, [wrong], tmp_path / "out", rows=rows)
    with pytest.raises(ConfigError, match="no length to prune to"):
        prune(base, task, held, [], tmp_path / "out", rows=rows)
    other = Base(tiny_model("llama", seed=7), tiny_tokenizer(), "other")
    with pytest.raises(ArtifactError, match="belongs to base"):
        prune(other, task, held, [2], tmp_path / "out", rows=rows)


def test_command(tmp_path):
    from typer.testing import CliRunner

    from softprompt.cli import app, prune, train  # noqa: F401 - each adds its verb

    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps(row.values) + "\n" for part in tiny_rows().values() for row in part)
    )
    task = tiny_task(scoring={"over": "vocabulary"}).spec.model_dump(mode="json", exclude_none=True)
    task["data"] = {"source": str(tmp_path / "rows.jsonl"), "split": {"train": 24, "dev": 12, "test": 12}}
    settings = {"base": str(tmp_path / "base"), "task": task, "method": {"name": "infix", "length": 4}, "train": TRAIN}
    (tmp_path / "run.yaml").write_text(json.dumps(settings))
    runner, run = CliRunner(), tmp_path / "run"
    assert runner.invoke(app, ["train", str(tmp_path / "run.yaml"), "--out", str(run)]).exit_code == 0
    wanted = ["--to", "2", "--to", "1", "--rows", "4", "--out", str(tmp_path / "out")]
    found = runner.invoke(app, ["prune", str(run), *wanted, "train.lr=0.01"])
    assert found.exit_code == 0, found.output
    assert "dev trained on" in found.output and (tmp_path / "out/1/artifact/manifest.json").is_file()
    plotted = (tmp_path / "out/prune.png").is_file()
    assert plotted or "matplotlib is not installed" in found.output
    trained_on = json.loads((tmp_path / "out/2/artifact/manifest.json").read_text())["training"]
    assert trained_on["epochs"] == 1 and trained_on["lr"] == 0.01 and trained_on["batch_size"] == 8
    wrong = runner.invoke(app, ["prune", str(run), *wanted, "seed=3"])
    assert isinstance(wrong.exception, ConfigError) and "only train.key=value" in str(wrong.exception)
    (run / "run.yaml").unlink()
    alone = runner.invoke(app, ["prune", str(run), *wanted])
    assert isinstance(alone.exception, ConfigError) and "no run.yaml" in str(alone.exception)
    named = runner.invoke(app, ["prune", str(run), *wanted, "train.lr=0.01", "--run", str(tmp_path / "run.yaml")])
    assert named.exit_code == 0, named.output
    assert math.isfinite(json.loads((tmp_path / "out/prune.json").read_text())["seconds"])
