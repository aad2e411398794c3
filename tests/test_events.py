"""Whoever listens to a run hears what its event log holds, in order and once; what fails there stops the run."""

from __future__ import annotations

import json

import pytest
from helpers import tiny_rows, tiny_task
from models import tiny_base

from softprompt.errors import ConfigError, TrainingError
from softprompt.interrupts import Interrupted
from softprompt.training import train

SETTINGS = {"max_steps": 4, "batch_size": 4, "lr": 0.02, "eval_every": 2}


@pytest.fixture(scope="module")
def base():
    return tiny_base()


def run(base, folder, on_event, method="soft", **how):
    how = {"train": SETTINGS, "rows": tiny_rows(8, 4, 4), "check": False, **how}
    return train(base, tiny_task(), method, folder, on_event=on_event, **how)


def logged(folder):
    return [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def names(events):
    return [event["event"] for event in events]


def test_events_are_those_of_the_log_also_without_a_folder(base, tmp_path):
    heard, alone = [], []
    result = run(base, tmp_path, heard.append)
    assert heard == logged(tmp_path)
    assert names(heard) == ["start", "step", "step", "dev", "step", "step", "dev", "doctor", "trained", "final", "end"]
    start, end = heard[0], heard[-1]
    assert (start["base"], start["task"], start["method"]["name"]) == (base.name, "tiny", "soft")
    assert start["train"]["lr"] == 0.02 and start["train"]["max_steps"] == 4 and start["seed"] == 0
    assert (end["parameters"], end["best_step"]) == (result.parameters, result.best_step)
    run(base, None, alone.append)
    assert names(alone) == names(heard)
    assert [event["loss"] for event in alone if event["event"] == "step"] == [
        event["loss"] for event in heard if event["event"] == "step"
    ]


def test_a_run_that_goes_on_gives_the_events_of_the_rest(base, tmp_path):
    class Stop(Interrupted):
        pass

    def until_three(event):
        first.append(event)
        if event["event"] == "dev":
            raise Stop(said="enough")

    first, rest, again, test = [], [], [], []
    with pytest.raises(KeyboardInterrupt, match="enough"):
        run(base, tmp_path, until_three)
    run(base, tmp_path, rest.append)
    assert [event["step"] for event in first if event["event"] == "step"] == [1, 2]
    # no checkpoint was due, so steps 1 and 2 are made, and told, again
    assert [event["step"] for event in rest if event["event"] == "step"] == [1, 2, 3, 4]
    assert rest == logged(tmp_path)
    run(base, tmp_path, again.append)
    assert again == []  # the run is finished
    run(base, tmp_path, test.append, test=True)
    assert [(event["event"], event["split"]) for event in test] == [("final", "test")]
    assert names(logged(tmp_path)).count("end") == 1


def test_a_run_goes_on_behind_its_checkpoint(base, tmp_path, monkeypatch):
    monkeypatch.setattr("softprompt.training.checkpoints.FolderStore.due", lambda self, at_once=False: True)

    def until_three(event):
        if event["event"] == "step" and event["step"] == 3:
            raise RuntimeError("disk of the listener is full")

    rest = []
    with pytest.raises(
        TrainingError, match=r"on_event failed on the event 'step' at step 3 \(RuntimeError: disk of"
    ) as told:
        run(base, tmp_path, until_three)
    assert isinstance(told.value.__cause__, RuntimeError)
    result = run(base, tmp_path, rest.append)
    assert names(rest)[:2] == ["start", "resumed"] and rest[1]["step"] == 2
    assert [event["step"] for event in rest if event["event"] == "step"] == [3, 4]
    whole = run(base, None, lambda event: None)
    assert result.metrics["dev"].nll == whole.metrics["dev"].nll


def test_an_error_of_ours_goes_through_as_it_is(base):
    def refuse(event):
        raise ConfigError("not so")

    with pytest.raises(ConfigError, match=r"^not so$"):
        run(base, None, refuse)


def test_what_a_listener_changes_changes_nothing_of_the_run(base, tmp_path):
    def spoil(event):
        event.clear()

    result = run(base, None, spoil)
    assert names(result.events)[0] == "start" and names(result.events)[-1] == "end"


def test_a_method_that_is_solved_has_events_too(base):
    heard = []
    result = run(base, None, heard.append, method="probe")
    assert names(heard) == ["start", "final", "end"]
    assert heard[0]["train"] == {} and heard[-1]["parameters"] == result.parameters > 0
