"""One suite over every registered method and family: what a method promises, it keeps. A new method gets it for free."""

from __future__ import annotations

import json

import pytest
import torch
from covering import covering
from helpers import scores, tiny_rows, tiny_task
from models import FAMILIES, tiny_base

from softprompt.errors import ArtifactError, ConfigError
from softprompt.methods import make_method
from softprompt.runtime import Runtime
from softprompt.training import prepare, train

from .cases import METHODS, SETTINGS, name_of, path_of


@pytest.fixture(params=METHODS, ids=name_of)
def method(request):
    return request.param


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run of a method on a family, with its artifact, made once."""
    kept = {}

    def get(method, family="llama"):
        key = json.dumps([method, family])
        if key not in kept:
            folder = tmp_path_factory.mktemp("run")
            kept[key] = train(tiny_base(family), tiny_task(), method, folder, train=SETTINGS, rows=tiny_rows(), seed=1)
        return kept[key]

    return get


def restored(result):
    """What a run exported, in a method of its own, ready to score the same rows."""
    method = make_method(result.prepared.method.spec.model_dump())
    method.restore(
        {name: value.clone() for name, value in result.prepared.method.export().items()}, result.prepared.base
    )
    return prepare(result.prepared.base, tiny_task(), method, rows=tiny_rows())


@pytest.mark.parametrize(("method", "family"), covering(METHODS, FAMILIES, path_of, name_of))
def test_trains_saves_and_restores(method, family, trained):
    """Only its own parameters move; the base's bytes and logits stay; what was exported scores the same when restored."""
    base = tiny_base(family)
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        logits = base.model(ids).logits
    result = trained(method, family)
    again = restored(result)
    assert all(torch.equal(weight, before[name]) for name, weight in base.model.state_dict().items())
    assert not any(weight.requires_grad or weight.grad is not None for weight in base.model.parameters())
    with torch.no_grad():
        assert torch.equal(base.model(ids).logits, logits)

    tensors = result.prepared.method.export()
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in tensors.values())
    assert torch.allclose(scores(again), scores(result.prepared), atol=1e-5)
    assert {name: value.shape for name, value in again.method.export().items()} == {
        name: value.shape for name, value in tensors.items()
    }


@pytest.mark.parametrize(("method", "family"), covering(METHODS, ["llama", "gemma3"], path_of, name_of))
def test_serves_beside_another_artifact_as_it_was_trained(method, family, trained):
    """Saved to disk, loaded by a runtime, in one batch with another method's rows."""
    result, other = trained(method, family), trained({"name": "soft", "length": 3, "instruction": True}, family)
    runtime = Runtime(tiny_base(family))
    runtime.add("it", result.artifact)
    runtime.add("other", other.artifact)
    rows = [{**row.values, "artifact": name} for row in tiny_rows()["dev"] for name in ("it", "other")]
    found = runtime.predict(rows)
    for name, run in (("it", result), ("other", other)):
        ours = torch.tensor([list(one.probabilities.values()) for one in found if one.artifact == name])
        assert torch.allclose(ours, scores(run.prepared).exp(), atol=1e-4)


def test_learning_moves_the_loss(method):
    spec = {**SETTINGS, "epochs": 8, "patience": 20}
    result = train(tiny_base(), tiny_task(), method, train=spec, rows=tiny_rows(32), seed=1)
    losses = [event["loss"] for event in result.events if event["event"] == "step"]
    if losses:
        assert sum(losses[-8:]) < sum(losses[:8])  # an epoch: rows differ more than a step moves


def test_a_run_that_was_cut_short_ends_in_the_same_bits(method, trained, tmp_path, monkeypatch):
    """So does one of the same seed that never stopped (`trained` is of seed 1); another seed gives other tensors."""
    from softprompt.training import checkpoints

    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)

    class Stopped(Exception):
        pass

    def stop(what, done, total):
        if what.startswith("training") and done == 3:
            raise Stopped

    whole = trained(method)
    arguments = {"train": SETTINGS, "rows": tiny_rows()}
    if whole.prepared.method.parameters():
        with pytest.raises(Stopped):
            train(tiny_base(), tiny_task(), method, tmp_path, seed=1, progress=stop, **arguments)
    went_on = train(tiny_base(), tiny_task(), method, tmp_path, seed=1, **arguments)
    tensors = went_on.prepared.method.export()
    assert all(torch.equal(value, tensors[name]) for name, value in whole.prepared.method.export().items())
    steps = [
        [
            (event["step"], event["loss"], event["norm"])
            for event in map(json.loads, text.splitlines())
            if event["event"] == "step"
        ]
        for text in ((run.artifact.parent / "events.jsonl").read_text(encoding="utf-8") for run in (whole, went_on))
    ]
    assert steps[0] == steps[1]
    if went_on.prepared.method.parameters():
        assert "resumed" in (tmp_path / "events.jsonl").read_text(encoding="utf-8")
        other = train(tiny_base(), tiny_task(), method, seed=4, **arguments).prepared.method.export()
        assert any(not torch.equal(other[name], value) for name, value in tensors.items())


def test_accumulation_changes_nothing(method):
    """1 × 8 rows = 4 × 2 rows, though their answers have different lengths."""
    if "dropout" in method:
        method = {**method, "dropout": 0.0}  # draws other units for other micro-batches
    base, task = tiny_base(), tiny_task(verbalizer={"good": "good indeed", "bad": "bad"})
    runs = [
        train(base, task, method, train={**SETTINGS, "epochs": 1, "micro_batch": size}, rows=tiny_rows())
        for size in (8, 2)
    ]
    losses, norms = ([[e[key] for e in run.events if e["event"] == "step"] for run in runs] for key in ("loss", "norm"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and norms[0] == pytest.approx(norms[1], rel=1e-3)
    a, b = (run.prepared.method.export() for run in runs)
    # element by element Adam turns a gradient of nearly zero into a step of either sign
    assert all((a[name] - b[name]).norm() <= 1e-3 * max(1.0, a[name].norm()) for name in a)


def test_scores_do_not_depend_on_the_batch(method, trained):
    ready = trained(method).prepared
    together = scores(ready)
    alone = []
    for row in ready.splits["dev"]:
        ready.splits["one"] = [row]
        alone.append(scores(ready, "one"))
    assert torch.allclose(together, torch.cat(alone), atol=1e-4)


def test_unknown_setting_is_refused(method):
    settings = {"name": method} if isinstance(method, str) else method
    with pytest.raises(ConfigError, match="unknown key 'colour'"):
        make_method({**settings, "colour": 1})


def test_missing_extra_and_misshapen_tensors_are_refused(method, trained):
    ready = trained(method).prepared
    tensors = ready.method.export()

    def restore(changed):
        make_method(ready.method.spec.model_dump()).restore(changed, ready.base)

    with pytest.raises(ArtifactError):
        restore({**tensors, "extra": torch.zeros(2)})
    if tensors:
        first = next(iter(tensors))
        for changed in ({}, {name: value for name, value in tensors.items() if name != first}):
            with pytest.raises(ArtifactError):
                restore(changed)
        shape = tensors[first].shape
        with pytest.raises(ArtifactError):
            restore({**tensors, first: torch.zeros(*shape[:-1], shape[-1] + 1)})
