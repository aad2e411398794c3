"""Contrastive training of encoders: the loss is the paper's, the head is scikit-learn's, the artifact is any other."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import close, scores, tiny_rows, tiny_task
from models import MASKED, tiny_base, tiny_model
from sklearn.linear_model import LogisticRegression
from test_bidirectional import encoder

from softprompt import artifact as artifacts
from softprompt.answers import evaluate
from softprompt.answers.form import frozen_learned
from softprompt.base import Base
from softprompt.data import Row
from softprompt.errors import ConfigError, DataError, SoftpromptError, TrainingError
from softprompt.methods import make_method
from softprompt.methods.contrasted import STRENGTHS
from softprompt.parallel import Processes
from softprompt.prepared import prepare, with_head
from softprompt.runfile import TrainSpec
from softprompt.runtime import Runtime
from softprompt.training import checkpoints, train
from softprompt.training.contrastive import (
    contrasted,
    contrastive_loss,
    contrastive_objective,
    paired_batch_at,
    refuse_unpaired,
)
from softprompt.training.merging import merge
from softprompt.training.saving import save

SETTINGS = {"objective": "contrastive", "max_steps": 6, "batch_size": 8, "eval_every": 2}
METHODS = [{"name": "lora", "r": 2}, "full", {"name": "prefix", "length": 3}]
IDS = ["lora", "full", "prefix"]


def ready_for(base, method, rows=None):
    """A contrastive run, prepared."""
    task = tiny_task()
    headed = with_head(make_method(method), base, task)
    method = contrasted(headed, base, task, TrainSpec(objective="contrastive"), Processes())
    return prepare(base, task, method, rows=rows or tiny_rows(), seed=0)


def naive_loss(states, labels, temperature):
    """Khosla et al. 2020, eq. 2, term by term."""
    unit = [state / state.norm() for state in states]
    terms = []
    for i, label in enumerate(labels):
        others = [k for k in range(len(labels)) if k != i]
        alike = [k for k in others if labels[k] == label]
        below = torch.stack([(unit[i] @ unit[k] / temperature).exp() for k in others]).sum()
        if alike:
            terms.append(-sum(((unit[i] @ unit[k] / temperature).exp() / below).log() for k in alike) / len(alike))
    return torch.stack(terms).mean()


def mean_states(model, ready, rows):
    """Of a plain model of transformers, each row by itself."""
    found = []
    for row in rows:
        ids = [*ready.bound.prefix_ids, *row.text, *ready.bound.cue, *ready.bound.tail]
        found.append(model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0))
    return found


@pytest.mark.parametrize("family", MASKED)
def test_loss_and_gradients_are_those_of_a_plain_model(family):
    base, plain = encoder(family), tiny_model(family).base_model.eval()
    ready = ready_for(base, "full")
    rows = ready.splits["train"][:7]
    loss, count = contrastive_objective(ready, 0.2)(rows, ready.method.learned())
    expected = naive_loss(mean_states(plain, ready, rows), [row.gold for row in rows], 0.2)
    assert count == 7
    close(loss / count, expected)
    (expected * count).backward()
    gradients = torch.autograd.grad(loss, ready.method.parameters(), allow_unused=True)
    names = ready.method.inner.names(base)
    assert len(names) == len(gradients) > 10
    wanted, moved = dict(plain.named_parameters()), 0
    for name, mine in zip(names, gradients, strict=True):
        theirs = wanted[name].grad
        assert (mine is None or not mine.any()) == (theirs is None or not theirs.any()), name
        if mine is not None and theirs is not None:
            close(mine, theirs)
            moved += bool(theirs.any())
    assert moved > 10


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_every_methods_gradients_are_those_of_rows_run_alone(method):
    """Padding and neighbours change nothing: only the loss compares rows."""
    ready = ready_for(encoder(), method)
    parameters, rows = ready.method.parameters(), ready.splits["train"][:6]
    loss, _ = contrastive_objective(ready, 0.1)(rows, ready.method.learned())
    alone = [ready.engine.pooled([row], ready.method.learned())[0] for row in rows]
    expected = len(rows) * naive_loss(alone, [row.gold for row in rows], 0.1)
    close(loss, expected)
    mine, theirs = torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters)
    assert any(bool(value.any()) for value in theirs)
    for a, b in zip(mine, theirs, strict=True):
        close(a, b)


def test_a_row_without_a_partner_is_compared_and_has_no_term():
    states = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels, ones = [0, 0, 1, 1, 2], torch.ones(5)
    loss = contrastive_loss(states, torch.tensor(labels), ones, 0.5)
    close(loss, naive_loss(list(states), labels, 0.5))
    without = contrastive_loss(states[:4], torch.tensor(labels[:4]), ones[:4], 0.5)
    assert (loss - without).abs().item() > 1e-3  # the fifth stands in the others' terms
    nothing = contrastive_loss(states, torch.arange(5), ones, 0.5)
    (gradient,) = torch.autograd.grad(nothing, [states])
    assert nothing.item() == 0 and not gradient.any()


def test_a_rows_weight_weighs_its_own_term():
    states = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 1, 1])
    logp = F.cosine_similarity(states[:, None], states[None], dim=2) / 0.5
    logp = logp.masked_fill(torch.eye(4, dtype=torch.bool), -torch.inf).log_softmax(1)
    each = [-logp[row, partner] for row, partner in ((0, 1), (1, 0), (2, 3), (3, 2))]
    expected = (3 * each[0] + each[1] + each[2] + each[3]) / 6
    close(contrastive_loss(states, labels, torch.tensor([3.0, 1.0, 1.0, 1.0]), 0.5), expected)


@pytest.mark.parametrize(("size", "count"), [(8, 61), (4, 16), (32, 33), (32, 20)])
def test_an_epoch_has_every_row_once_and_steps_have_pairs(size, count):
    labels = [index % 5 if index % 7 else 0 for index in range(count)]
    steps = math.ceil(count / size)
    epochs = []
    for epoch in range(3):
        batches = [paired_batch_at(labels, epoch * steps + step, size, 3) for step in range(steps)]
        assert sorted(row for batch in batches for row in batch) == list(range(count))
        assert max(map(len, batches)) <= size and max(map(len, batches)) - min(map(len, batches)) <= 1
        for batch in batches:
            own = [labels[row] for row in batch]
            assert sum(own.count(label) == 1 for label in own) <= 2  # at the two ends of the batch
            assert any(own.count(label) > 1 for label in own)
        epochs.append(batches)
    assert epochs[0] != epochs[1]
    assert paired_batch_at(labels, 1, size, 3) == paired_batch_at(labels, 1, size, 3)
    assert paired_batch_at(labels, 0, size, 3) != paired_batch_at(labels, 0, size, 4)


def test_the_steps_of_a_run_have_these_rows(monkeypatch):
    steps = []

    def drawn(labels, step, size, seed):
        steps.append((step, size, seed))
        return paired_batch_at(labels, step, size, seed)

    monkeypatch.setattr("softprompt.training.loop.paired_batch_at", drawn)
    train(encoder(), tiny_task(), METHODS[0], train=SETTINGS, rows=tiny_rows(), seed=3, check=False)
    assert steps == [(step, 8, 3) for step in range(6)]


def test_a_label_of_one_row_stands_alone_in_an_epoch():
    assert sorted(paired_batch_at([0, 1, 1, 1, 2, 2], 0, 8, 0)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_the_head_is_scikit_learns_on_the_trained_states(method):
    """Also of the step that was kept, which is not the last one."""
    result = train(encoder(), tiny_task(), method, train=SETTINGS, rows=tiny_rows(40), check=False)
    ready = result.prepared
    learned = frozen_learned(ready.method)
    with torch.no_grad():
        fit, dev = (ready.engine.pooled(ready.splits[name], learned).double().numpy() for name in ("train", "dev"))
    mean, scale = fit.mean(0), math.sqrt(((fit.std(0, ddof=1) + 1e-6) ** 2).mean())
    gold, right = ([row.gold for row in ready.splits[name]] for name in ("train", "dev"))
    fits = [LogisticRegression(C=c, max_iter=2000).fit((fit - mean) / scale, gold) for c in STRENGTHS]
    losses = [-np.log(model.predict_proba((dev - mean) / scale)[np.arange(len(right)), right]).sum() for model in fits]
    expected = fits[int(np.argmin(losses))].predict_log_proba((dev - mean) / scale)
    close(scores(ready), torch.from_numpy(expected).float(), 1e-4)
    assert evaluate(ready, ready.splits["dev"]).estimate == result.metrics["dev"].estimate


def test_states_come_to_lie_by_label():
    """Cosines of rows of one label rise over those of others', and dev is answered."""
    rows = tiny_rows(40)
    settings = {**SETTINGS, "max_steps": 30, "eval_every": 15, "lr": 1e-3}
    result = train(encoder(), tiny_task(), "full", train=settings, rows=rows, check=False)
    losses = [event["loss"] for event in result.events if event["event"] == "step"]
    assert len(losses) == 30 and np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert result.metrics["dev"].estimate.value > 0.8
    spec = result.settings["train"]
    assert (spec["objective"], spec["temperature"]) == ("contrastive", 0.1)


def test_without_dev_rows_the_head_is_fitted_at_the_end():
    rows = {"train": tiny_rows(16)["train"]}
    result = train(encoder(), tiny_task(), METHODS[0], train=SETTINGS, rows=rows, check=False)
    head = result.prepared.method.head
    assert head is not None and bool(head.weight.any()) and result.best_step == 6


class StopError(Exception):
    """The end of a run in its middle."""


@pytest.mark.parametrize("moment", [2, 5])
def test_a_run_that_goes_on_gives_the_same_bytes(tmp_path, monkeypatch, moment):
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    how = {"train": SETTINGS, "rows": tiny_rows(), "check": False}

    def run(folder: Path, **more):
        return train(encoder(), tiny_task(), METHODS[0], folder, **how, **more)

    def stopping(event):
        if event["event"] == "step" and event["step"] == moment + 1:
            raise StopError

    whole = run(tmp_path / "whole")
    with pytest.raises(TrainingError):
        run(tmp_path / "cut", on_event=stopping)
    events: list[dict] = []
    done = run(tmp_path / "cut", on_event=events.append)
    assert any(event["event"] == "resumed" and 1 <= event["step"] <= moment for event in events)
    names = sorted(path.name for path in whole.artifact.iterdir())
    assert names == sorted(path.name for path in done.artifact.iterdir())
    for name in names:
        assert (whole.artifact / name).read_bytes() == (done.artifact / name).read_bytes()
    again = run(tmp_path / "whole")  # finished: nothing changes
    assert again.metrics["dev"].estimate == whole.metrics["dev"].estimate
    for mine, theirs in zip(*(one.prepared.method.export().values() for one in (again, whole)), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_the_artifact_is_an_ordinary_one(tmp_path, method):
    base = encoder()
    result = train(base, tiny_task(), method, train=SETTINGS, rows=tiny_rows(), check=False)
    saved = save(result, tmp_path / "it")
    assert {"head.weight", "head.bias"} < set(saved.tensors)
    runtime = Runtime(base)
    runtime.add("it", tmp_path / "it")
    asked = [row.values for row in result.prepared.splits["dev"]]
    served = runtime.predict([{"text": values["text"]} for values in asked], "it")
    mine = result.metrics["dev"].outcomes
    assert [one.label for one in served] == [one.predicted for one in mine]
    for one, outcome in zip(served, mine, strict=True):
        want = torch.tensor(list(outcome.scores.values())).exp()
        close(torch.tensor([one.probabilities[label] for label in outcome.scores]), want)


def test_what_was_trained_merges_into_a_base_and_a_head(tmp_path):
    folder = tmp_path / "base"
    tiny = encoder()
    tiny.model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    base = Base.load(folder, device="cpu", kind="encoder")
    result = train(base, tiny_task(), METHODS[0], tmp_path / "run", train=SETTINGS, rows=tiny_rows(), check=False)
    head = merge(artifacts.load(result.artifact), base, tmp_path / "merged", "it")
    runtime = Runtime(Base.load(tmp_path / "merged", device="cpu", kind="encoder"))
    runtime.add("head", head)
    before = Runtime(base)
    before.add("it", result.artifact)
    asked = [{"text": "joy sun"}, {"text": "rain mud"}]
    for mine, theirs in zip(runtime.predict(asked, "head"), before.predict(asked, "it"), strict=True):
        assert mine.probabilities == pytest.approx(theirs.probabilities, abs=1e-4)


@pytest.mark.parametrize(
    ("make", "method", "settings", "message"),
    [
        (tiny_base, "lora", {}, "kind causal; take an encoder"),
        (lambda: tiny_base("bert"), "lora", {}, "kind masked"),
        (lambda: tiny_base("t5"), "lora", {}, "kind seq2seq"),
        (encoder, "probe", {}, "'probe' learns nothing there; take lora, full or prefix"),
        (encoder, "hard", {}, "'hard' learns nothing there"),
        (encoder, "lora", {"batch_size": 3}, "batch_size is 3; take at least 4"),
        (encoder, "lora", {"batch_size": 8, "micro_batch": 4}, r"leave out train\.micro_batch"),
        (encoder, "lora", {"micro_batch": 4}, r"leave out train\.micro_batch"),
    ],
)
def test_what_it_is_not_for_is_refused_in_one_line(make, method, settings, message):
    with pytest.raises(ConfigError, match=message) as refused:
        train(make(), tiny_task(), method, train={"objective": "contrastive", **settings}, rows=tiny_rows())
    assert "\n" not in str(refused.value)


def test_a_micro_batch_of_a_whole_step_or_more_is_no_part_of_one():
    settings, rows = {"objective": "contrastive", "max_steps": 1}, tiny_rows()
    own = TrainSpec(**settings).filled(ready_for(encoder(), "lora", rows).method, len(rows["train"]))
    whole, plain = (
        train(encoder(), tiny_task(), "lora", train={**settings, **more}, rows=rows).as_artifact()
        for more in ({"micro_batch": own.batch_size}, {})
    )
    assert whole.digest == plain.digest


def test_other_task_types_are_refused():
    rows = [Row({"text": "joy", "labels": ["good"]}, f"row:{k}") for k in range(8)]
    task = type(tiny_task()).load(
        {"name": "sets", "type": "multilabel", "labels": ["good", "bad"], "template": {"input": "{{ text }}"}}
    )
    with pytest.raises(ConfigError, match="the task is of type 'multilabel'"):
        train(encoder(), task, "lora", train=SETTINGS, rows={"train": rows})


def test_several_processes_are_refused():
    class Two(Processes):
        world = 2

    method = with_head(make_method("lora"), encoder(), tiny_task())
    with pytest.raises(ConfigError, match="contrastive runs in one process"):
        contrasted(method, encoder(), tiny_task(), TrainSpec(objective="contrastive"), Two())


def test_rows_that_cannot_be_paired_are_refused():
    rows = tiny_rows(2, 0, 0)["train"]
    with pytest.raises(DataError, match="each of the 2 training rows has another"):
        train(encoder(), tiny_task(), "lora", train=SETTINGS, rows={"train": rows})
    alike = [row for row in tiny_rows(8)["train"] if row.values["label"] == "good"]
    with pytest.raises(DataError, match="at least two labels; all 4 have the same"):
        train(encoder(), tiny_task(), "lora", train=SETTINGS, rows={"train": alike})
    ready = ready_for(encoder(), "full")
    assert refuse_unpaired(ready.splits["train"]) is None


def test_what_is_left_out_is_filled_by_the_methods_own_defaults():
    ready = ready_for(encoder(), "full")
    own = TrainSpec().filled(ready.method.inner, 102)
    mine = TrainSpec(objective="contrastive").filled(ready.method, 102)
    assert (mine.lr, mine.batch_size, mine.temperature) == (2 * own.lr, 16, 0.1)
    assert mine.max_steps < own.max_steps and mine.micro_batch == mine.batch_size
    again = TrainSpec.model_validate(mine.model_dump(exclude_none=True))  # as a run's own file says it
    method = with_head(make_method("full"), encoder(), tiny_task())
    assert contrasted(method, encoder(), tiny_task(), again, Processes()).refits


def test_a_temperature_is_for_this_objective():
    with pytest.raises(SoftpromptError, match="temperature is for objective: contrastive"):
        train(encoder(), tiny_task(), "lora", train={"temperature": 0.2}, rows=tiny_rows())
    assert not {"objective", "temperature"} & set(TrainSpec().model_dump(exclude_none=True))
