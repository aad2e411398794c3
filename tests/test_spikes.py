"""A loss spike sends a run back to its last good state with half the learning rate, in the same bytes however it is run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from helpers import tiny_rows, tiny_task
from models import tiny_base

from softprompt.training import Result, train
from softprompt.training import loop as loops
from softprompt.training.checkpoints import NEWEST
from softprompt.training.sealed import read_state
from softprompt.training.spikes import MOST, find_spike, learned_nothing, told
from softprompt.training.state import State

LR = 0.3
SETTINGS = {
    "epochs": 8,
    "batch_size": 4,
    "lr": LR,
    "eval_every": 5,
    "patience": 50,
    "schedule": "constant",
    "warmup": 0.0,
}
PROMPT = {"name": "infix", "length": 3}


def steps(*losses: float, norm: float = 0.3) -> list[tuple[float, float]]:
    return [(loss, norm) for loss in losses]


@pytest.mark.parametrize(
    "recent",
    [
        steps(10.0, 8.5, 5.0, 3.8, 2.8, 1.9, 1.6, 1.1, 1.2, 0.8, 0.8, 0.6, 0.5),  # label words begin high
        steps(*[0.001] * 8, 0.05, 0.4, 0.3, 0.2, 0.1),  # hard rows where all others are learned
        steps(*[0.3] * 8, 3.0, 0.2, 2.5, 0.3, 4.0),  # rows with a wrong label, now and then
        steps(*[0.3] * 8, 14.0, 14.0, 14.0, 14.0),  # not yet
        steps(0.3, 0.3, 0.3, *[14.0] * 5),  # of too few steps nothing is said
        [*steps(*[0.3] * 8), *steps(0.31, 0.29, 0.28, 0.35, 0.4, norm=70.0)],  # clipping bounds what the gradient does
        [*steps(*[0.3] * 8, norm=0.01), *steps(*[0.31] * 5, norm=0.9)],  # gradients that are not clipped
    ],
)
def test_what_is_no_spike(recent):
    assert find_spike(recent, clip=1.0) is None


@pytest.mark.parametrize(
    "recent",
    [
        steps(10.0, 8.5, 5.0, 3.8, 2.8, 1.9, 1.6, 1.1, 1.2, 0.9, 6.0, 7.0, 14.0, 13.0, 13.0),
        steps(1.9, 2.24, 2.52, 2.76, 2.46, 2.35, 2.58, 3.16, 4.65, 3.87, 4.25, 3.85, 3.66),  # 15 labels, lost for good
        steps(*[0.9] * 8, 2.5, 7.0, 14.0, 13.0, 13.0),
        steps(*[2.5] * 4, *[6.0] * 5),  # texts: a word of no meaning costs not much more
        [*steps(*[0.3] * 8), *steps(0.31, 0.5, 0.6, 0.7, 0.6, norm=70.0)],  # gradient and loss
    ],
)
def test_what_is_a_spike(recent):
    spike = find_spike(recent, clip=1.0)
    assert spike and (spike.loss, spike.norm) == recent[-1] and spike.usual_norm == 0.3


def test_batches_that_only_differ_seldom_look_like_a_spike():
    """Single rows, of which every fifth has a loss of several nats."""
    rng = random.Random(0)
    recent = [(rng.expovariate(0.3) if rng.random() < 0.2 else rng.expovariate(10), 0.3) for _ in range(20_000)]
    assert sum(find_spike(recent[max(0, end - 13) : end], 1.0) is not None for end in range(9, 20_000)) <= 3


def kicked(monkeypatch, step: int = 20, least: float = 0.6) -> None:
    """Let an optimizer's step lead far away if its learning rate is more than this share of `LR`."""
    real = torch.optim.AdamW.step

    def kick(self, *args):
        real(self, *args)
        group = self.param_groups[0]
        for parameter in group["params"]:
            if int(self.state[parameter]["step"]) == step and group["lr"] > least * LR * group["scale"]:
                parameter.data.mul_(-30)

    monkeypatch.setattr(torch.optim.AdamW, "step", kick)


def run(folder: Path | None = None, method=PROMPT, seed: int = 0, **options) -> Result:
    settings = {**SETTINGS, **options.pop("train", {})}
    return train(
        tiny_base(),
        tiny_task(scoring={"over": "vocabulary"}),
        method,
        folder,
        train=settings,
        rows=tiny_rows(),
        seed=seed,
        check=False,
        **options,
    )


def events(folder: Path) -> list[dict]:
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def artifact(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "artifact").iterdir()}


def test_a_spike_sends_the_run_back_with_half_the_rate_and_is_its_first_finding(monkeypatch):
    kicked(monkeypatch)
    notices: list[str] = []
    result = run(notice=notices.append)
    (spike,) = [event for event in result.events if event["event"] == "spike"]
    assert (spike["step"], spike["back_to"], spike["factor"]) == (25, 16, 0.5)
    assert spike["loss"] > 1.5 * spike["median_loss"]
    done = [(event["step"], event["lr"]) for event in result.events if event["event"] == "step"]
    assert [step for step, _ in done] == [*range(1, 26), *range(17, 49)]
    assert {rate for _, rate in done[:25]} == {LR} and {rate for _, rate in done[25:]} == {LR / 2}
    losses = [event["loss"] for event in result.events if event["event"] == "step"]
    assert losses[25] == losses[16] and losses[-1] < losses[15]  # from the same state as before, and it learns on
    first = result.findings[0]
    assert (first.check, first.level) == ("spike", "warning")
    assert "by step 25" in first.what and "went back to step 16, and on with 0.5 of the learning rate" in first.what
    assert notices == [f"warning: {first}"]
    evaluated = [event["step"] for event in result.events if event["event"] == "dev"]
    assert evaluated == [5, 10, 15, 20, 20, 25, 30, 35, 40, 45, 48]
    assert result.best_step > 16


def test_a_steady_run_says_nothing_and_keeps_its_rate():
    result = run()
    assert not [event for event in result.events if event["event"] == "spike"] and not result.findings
    assert {event["lr"] for event in result.events if event["event"] == "step"} == {LR}


class Killed(BaseException):
    """As sudden as kill -9, within this process."""


@pytest.mark.parametrize(
    "moment", [12, 26, 31]
)  # steps taken: before the spike, right after it, and when it is made good
def test_a_run_that_is_killed_around_a_spike_ends_in_the_same_bytes(tmp_path, monkeypatch, moment):
    kicked(monkeypatch)
    monkeypatch.setattr("softprompt.training.checkpoints.SECONDS", 0.0)
    monkeypatch.setattr("softprompt.training.checkpoints.SHARE", 1e9)
    whole = run(tmp_path / "whole")
    real, taken = loops.refuse_not_finite, []

    def die(*args):
        taken.append(1)
        if len(taken) == moment:
            raise Killed
        real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(loops, "refuse_not_finite", die)
        with pytest.raises(Killed):
            run(tmp_path / "killed")
    _, state = read_state(tmp_path / "killed" / NEWEST)
    assert state.step == {12: 11, 26: 16, 31: 21}[moment] and len(state.spikes) == (moment > 25)
    done = run(tmp_path / "killed")
    assert artifact(tmp_path / "killed") == artifact(tmp_path / "whole")
    assert done.findings == whole.findings and done.findings[0].check == "spike"
    resumed = [event for event in events(tmp_path / "killed") if event["event"] not in ("resumed", "start")]
    expected = [event for event in events(tmp_path / "whole") if event["event"] != "start"]
    # the memory that a run took at most is another figure
    assert [e for e in resumed if e["event"] != "trained"] == [e for e in expected if e["event"] != "trained"]


def test_it_goes_back_some_times_and_then_goes_on_as_it_is(monkeypatch):
    kicked(monkeypatch, least=0.0)
    result = run(train={"epochs": 12})
    spikes = [event for event in result.events if event["event"] == "spike"]
    assert [spike.get("back_to") for spike in spikes] == [16] * MOST + [None]
    assert [spike["factor"] for spike in spikes] == [0.5, 0.25, 0.125, 0.0625, 0.0625]
    assert "after 4 times a run goes on as it is" in result.findings[0].what
    assert [event["step"] for event in result.events if event["event"] == "step"][-1] == 72


def test_what_is_large_goes_back_to_a_dev_evaluation(monkeypatch):
    """Nothing is kept for a spike that is not kept anyway; the optimizer begins anew."""
    kicked(monkeypatch, step=16)
    monkeypatch.setattr("softprompt.training.spikes.LARGEST", 100)
    result = run()
    (spike,) = [event for event in result.events if event["event"] == "spike"]
    back_to = spike["back_to"]
    assert spike["step"] == 21 and back_to == 15
    done = [event for event in result.events if event["event"] == "step"]
    assert [event["step"] for event in done] == [*range(1, 22), *range(back_to + 1, 49)]
    assert done[21]["loss"] == done[back_to]["loss"] and result.best_step > back_to


def test_without_a_state_to_go_back_to_the_rate_is_halved(monkeypatch):
    kicked(monkeypatch, step=16)
    monkeypatch.setattr("softprompt.training.spikes.LARGEST", 100)
    result = run(train={"eval_every": 48})
    spike = next(event for event in result.events if event["event"] == "spike")
    assert spike["step"] == spike["back_to"] == 21 and spike["factor"] == 0.5
    assert "had no earlier state to go back to" in result.findings[0].what
    assert [event["step"] for event in result.events if event["event"] == "step"] == list(range(1, 49))


def test_a_checkpoint_of_the_version_before_goes_on(tmp_path, monkeypatch):
    """It knows nothing of spikes: no snapshot, no factor."""
    from softprompt.training import sealed

    monkeypatch.setattr("softprompt.training.checkpoints.SECONDS", 0.0)
    whole = run(tmp_path / "whole")
    new = {"factor", "first_losses", "recent", "snapshots", "spikes"}
    fields = sealed.fields
    monkeypatch.setattr(sealed, "fields", lambda state: [item for item in fields(state) if item.name not in new])
    real = loops.refuse_not_finite

    def die(loss, norm, rows, spec, state, store):
        real(loss, norm, rows, spec, state, store)
        if state.step == 20:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(loops, "refuse_not_finite", die)
        with pytest.raises(Killed):
            run(tmp_path / "killed")
    assert not read_state(tmp_path / "killed" / NEWEST)[1].recent
    done = run(tmp_path / "killed")
    assert artifact(tmp_path / "killed") == artifact(tmp_path / "whole") and done.findings == whole.findings == []


def test_a_run_whose_loss_does_not_fall_says_so(monkeypatch):
    notices: list[str] = []
    monkeypatch.setattr(loops, "learning_rate", lambda step, spec: -0.01)  # uphill
    result = run(notice=notices.append)
    (finding,) = result.findings
    assert finding.check == "loss" and finding.what.startswith("this run learned nothing: its training loss was 5.")
    assert notices == [f"warning: {finding}"]


def test_of_few_steps_it_is_not_said_that_nothing_was_learned():
    falling = State(step=16, first_losses=[2.0] * 8, recent=[[1.9, 0.1]] * 8)
    assert learned_nothing(falling, LR) is None
    assert learned_nothing(State(step=16, first_losses=[2.0] * 8, recent=[[2.0, 0.1]] * 8), LR) is not None
    assert learned_nothing(State(step=15, first_losses=[2.0] * 8, recent=[[2.0, 0.1]] * 8), LR) is None
    assert learned_nothing(State(step=40, recent=[[2.0, 0.1]] * 8), LR) is None  # began in a version that kept none


def test_several_spikes_are_one_finding():
    spikes = [
        {"step": 17, "median_loss": 0.63, "loss": 14.2, "median_norm": 0.4, "norm": 74.0, "back_to": 8, "factor": 0.5},
        {"step": 40, "median_loss": 0.2, "loss": 9.0, "median_norm": 0.2, "norm": 8.0, "back_to": 24, "factor": 0.25},
    ]
    assert str(told(spikes, 0.05)) == (
        "spike: the loss rose from 0.63 to 14 by step 17 (gradient norm from 0.4 to 74), and again by step 40; the run went "
        "back to step 8, to step 24, and on with 0.25 of the learning rate; lower train.lr (now 0.05) or raise train.warmup"
    )
