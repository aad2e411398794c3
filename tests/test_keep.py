"""Which parameters a run ends with: the best, the last, or an average."""

from __future__ import annotations

import pytest
import torch
from helpers import tiny_rows, tiny_task
from models import tiny_base
from safetensors.torch import load_file

from softprompt.interrupts import Interrupted
from softprompt.metrics import Estimate
from softprompt.runfile import TrainSpec
from softprompt.training import keeping, loop, spikes, train
from softprompt.training.state import State

STEADY = {"batch_size": 4, "lr": 0.1, "schedule": "constant", "warmup": 0.0, "eval_every": 2, "patience": 1}


def tensors(out, keep=None, steps=8, dev=True, method="soft"):
    """What a run of so many steps saves, and the run."""
    rows = tiny_rows() if dev else {**tiny_rows(), "dev": []}
    result = train(
        tiny_base(),
        tiny_task(),
        method,
        out,
        train={**STEADY, "max_steps": steps, "keep": keep},
        rows=rows,
        check=False,
    )
    return load_file(result.artifact / "adapter_model.safetensors"), result


@pytest.mark.parametrize("dev", [True, False])
def test_the_average_is_that_of_the_second_half(tmp_path, dev):
    """Steps 6 and 8 of 8, each as a run that ends there leaves them."""
    ends = [tensors(tmp_path / str(steps), "last", steps, dev)[0] for steps in (6, 8)]
    found, result = tensors(tmp_path / "average", "average", dev=dev)
    assert result.best_step == 8
    for name, value in found.items():
        assert torch.allclose(value, (ends[0][name] + ends[1][name]) / 2, atol=1e-6)
        assert not torch.allclose(value, ends[1][name], atol=1e-4)
    if dev:  # it is what is kept that was measured
        again = result.prepared.form.predict(result.prepared, result.prepared.splits["dev"])
        assert [one.scores for one in again] == [one.scores for one in result.metrics["dev"].outcomes]


def test_the_last_is_kept_whatever_dev_says(tmp_path, monkeypatch):
    """Dev only falls, so the best is the first, and patience would end the run."""

    class Found:
        def __init__(self, value):
            self.estimate, self.nll = Estimate("accuracy", value, (value - 0.02, value + 0.02), 10), 1 - value

    for keep, kept in (("last", 8), (None, 2)):
        falling = iter((0.9, 0.7, 0.5, 0.3))
        monkeypatch.setattr(loop, "evaluate_quickly", lambda *given, falling=falling: Found(next(falling)))
        assert tensors(tmp_path / str(kept), keep)[1].best_step == kept


def test_an_average_goes_on_bit_by_bit(tmp_path):
    whole, _ = tensors(tmp_path / "whole", "average")

    def stop(event):
        if event["event"] == "step" and event["step"] == 7:
            raise KeyboardInterrupt

    settings = {**STEADY, "max_steps": 8, "keep": "average"}
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        train(
            tiny_base(),
            tiny_task(),
            "soft",
            tmp_path / "cut",
            train=settings,
            rows=tiny_rows(),
            on_event=stop,
            check=False,
        )
    found, _ = tensors(tmp_path / "cut", "average")
    assert found.keys() == whole.keys() and all(torch.equal(found[name], whole[name]) for name in whole)
    finished, _ = tensors(tmp_path / "cut", "average")  # asked once more
    assert all(torch.equal(finished[name], whole[name]) for name in whole)


def test_what_a_checkpoint_held_meets_parameters_of_another_device():
    state = State(step=8, average={"count": 1, "parameters": [torch.ones(2)]})
    spec = TrainSpec(max_steps=8, eval_every=2, keep="average")
    keeping.average_in(state, spec, [torch.zeros(2, device="meta")])
    assert state.average["count"] == 2 and state.average["parameters"][0].is_meta


def test_a_spike_takes_the_average_back_too(monkeypatch):
    parameter = torch.nn.Parameter(torch.zeros(2))
    guard = spikes.Guard([parameter], torch.optim.AdamW([parameter]), 1.0, whole_model=False)
    state, earlier = State(average={"count": 1, "parameters": [torch.ones(2)]}), None
    for step in range(2 * spikes.APART + 1):
        state.step = step
        guard.keep(state)
        earlier = earlier or state.average
    state.average = {"count": 2, "parameters": [torch.full((2,), 9.0)]}
    monkeypatch.setattr(spikes, "find_spike", lambda recent, clip: spikes.Spike(9.0, 9.0, 1.0, 1.0))
    assert guard.look(state, 9.0) and state.step < 2 * spikes.APART
    assert state.average == earlier
