"""`train.report_to`: what trackers are given, that a run which goes on goes on there, and that none of it changes a run."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
from helpers import tiny_rows, tiny_task
from models import tiny_base

from softprompt.errors import ConfigError, MissingExtraError, TrainingError
from softprompt.training import train

SETTINGS = {"max_steps": 6, "batch_size": 4, "lr": 0.02, "eval_every": 2}
TRACKERS = ("wandb", "mlflow", "trackio")


@pytest.fixture(scope="module")
def base():
    return tiny_base()


@pytest.fixture
def always_kept(monkeypatch):
    monkeypatch.setattr("softprompt.training.checkpoints.FolderStore.due", lambda self, at_once=False: True)


def run(base, folder, report_to, **how):
    settings = {**SETTINGS, "report_to": report_to}
    how = {"train": settings, "rows": tiny_rows(24, 4, 4), "check": False, **how}
    return train(base, tiny_task(), "soft", folder, **how)


def cut_at_four(base, folder, report_to):
    """A run that ends behind its fourth step, whose last checkpoint is of the third."""

    def stop(event):
        if event["event"] == "step" and event["step"] == 4:
            raise RuntimeError("enough")

    with pytest.raises(TrainingError, match="enough"):
        run(base, folder, report_to, on_event=stop)


def test_tensorboard_shows_each_step_once_and_the_run_is_what_it_was(base, tmp_path, always_kept):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain = run(base, tmp_path / "plain", None)
    cut_at_four(base, tmp_path / "told", "tensorboard")
    told = run(base, tmp_path / "told", ["tensorboard"])
    for file in sorted(plain.artifact.iterdir()):
        assert file.read_bytes() == (told.artifact / file.name).read_bytes()
    assert (tmp_path / "plain/run.yaml").read_bytes() == (tmp_path / "told/run.yaml").read_bytes()
    run(base, tmp_path / "told", None, test=True)  # the same run, called without

    shown = EventAccumulator(str(tmp_path / "told/tensorboard")).Reload()
    losses = {event.step: event.value for event in shown.Scalars("train/loss")}
    logged = [json.loads(line) for line in (tmp_path / "told/events.jsonl").read_text().splitlines()]
    assert [event.step for event in shown.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert losses == pytest.approx({event["step"]: event["loss"] for event in logged if event["event"] == "step"})
    assert {"train/learning_rate", "dev/accuracy", "dev/accuracy_low", "dev/accuracy_high", "dev/nll"} <= set(
        shown.Tags()["scalars"]
    )
    assert shown.Scalars("final/parameters")[0].value == told.parameters
    assert "_hparams_/session_start_info" in shown.PluginTagToContent("hparams")


def test_starting_over_hides_what_was_shown(base, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(base, tmp_path, "tensorboard")
    run(base, tmp_path, "tensorboard", fresh=True, train={**SETTINGS, "max_steps": 2, "report_to": "tensorboard"})
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in shown.Scalars("train/loss")] == [1, 2]


class Recorder:
    """Stands for a library: notes each call with its arguments."""

    def __init__(self, monkeypatch, name, **members):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        self.calls = []
        for member, gives in members.items():
            setattr(module, member, self.noting(member, gives) if callable(gives) else gives)
        monkeypatch.setitem(sys.modules, name, module)
        self.module = module

    def noting(self, name, gives):
        def call(*args, **keywords):
            self.calls.append((name, args, keywords))
            return gives(*args, **keywords)

        return call

    def named(self, name):
        return [(args, keywords) for called, args, keywords in self.calls if called == name]


def nothing(*args, **keywords):
    return None


def fake_wandb(monkeypatch):
    def init(project, name, id, resume):
        noted = recorder.noting
        return SimpleNamespace(
            id=id,
            log=noted("log", nothing),
            define_metric=noted("define_metric", nothing),
            finish=noted("finish", nothing),
            config=SimpleNamespace(update=noted("config", nothing)),
            summary=SimpleNamespace(update=noted("summary", nothing)),
        )

    recorder = Recorder(monkeypatch, "wandb", init=init, run=None)
    return recorder


def test_wandb_goes_on_with_the_same_run(base, tmp_path, monkeypatch, always_kept):
    fake = fake_wandb(monkeypatch)
    cut_at_four(base, tmp_path, "wandb")
    run(base, tmp_path, "wandb")
    begun = [keywords for _, keywords in fake.named("init")]
    assert len(begun) == 2 and begun[0]["id"] == begun[1]["id"] and begun[0]["resume"] == "allow"
    assert begun[0]["project"] == "softprompt"
    assert [keywords["exit_code"] for _, keywords in fake.named("finish")] == [1, 0]
    settings = fake.named("config")[0][0][0]
    assert (settings["train.lr"], settings["method.name"], settings["rows.train"]) == (0.02, "soft", 24)
    assert "train.report_to" not in settings
    steps = [args[0]["train/global_step"] for args, _ in fake.named("log") if "train/loss" in args[0]]
    assert steps == [1, 2, 3, 4, 4, 5, 6]
    looks = [args[0] for args, _ in fake.named("log") if "dev/nll" in args[0]]
    assert all(look["dev/accuracy_low"] <= look["dev/accuracy"] <= look["dev/accuracy_high"] for look in looks)
    totals = {name: value for args, _ in fake.named("summary") for name, value in args[0].items()}
    assert {"final/dev_accuracy", "final/parameters", "final/best_step", "final/train_seconds"} <= set(totals)
    run(base, tmp_path, "wandb", fresh=True)
    assert fake.named("init")[2][1]["id"] != begun[0]["id"]


def test_a_run_of_wandb_that_the_caller_began_is_used_and_left_open(base, monkeypatch):
    fake = fake_wandb(monkeypatch)
    fake.module.run = fake.module.init("theirs", "theirs", "id", "allow")
    run(base, None, "wandb")
    assert len(fake.named("init")) == 1 and fake.named("log") and not fake.named("finish")


def test_mlflow_and_trackio_are_given_the_same(base, tmp_path, monkeypatch, always_kept):
    def started(run_id, run_name, nested):
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "abc"))

    def init(project, name, config, resume, embed):
        return SimpleNamespace(log=trackio.noting("log", nothing), finish=trackio.noting("finish", nothing))

    calls = dict.fromkeys(("log_params", "log_metrics", "end_run", "active_run"), nothing)
    mlflow = Recorder(monkeypatch, "mlflow", start_run=started, **calls)
    trackio = Recorder(monkeypatch, "trackio", init=init)
    cut_at_four(base, tmp_path, ["mlflow", "trackio"])
    run(base, tmp_path, ["mlflow", "trackio"])
    assert [keywords["run_id"] for _, keywords in mlflow.named("start_run")] == [None, "abc"]
    assert len(mlflow.named("log_params")) == 1  # MLflow takes a parameter once
    assert [args[0] for args, _ in mlflow.named("end_run")] == ["FAILED", "FINISHED"]
    one, other = (keywords["name"] for _, keywords in trackio.named("init"))
    assert one == other
    for library, key in ((mlflow, "log_metrics"), (trackio, "log")):
        steps = [keywords["step"] for args, keywords in library.named(key) if "train/loss" in args[0]]
        assert steps == [1, 2, 3, 4, 4, 5, 6]
        assert any("final/dev_accuracy" in args[0] for args, _ in library.named(key))


def test_a_tracker_that_fails_is_named_and_the_run_goes_on(base, monkeypatch):
    def broken(*args, **keywords):
        raise ConnectionError("no route\nto the server")

    calls = dict.fromkeys(("log_params", "end_run", "active_run"), nothing)
    started = SimpleNamespace(info=SimpleNamespace(run_id="abc"))
    Recorder(monkeypatch, "mlflow", start_run=lambda **how: started, log_metrics=broken, **calls)
    told = []
    assert run(base, None, "mlflow", notice=told.append).metrics["dev"]
    failed = [line for line in told if "mlflow failed (ConnectionError: no route)" in line]
    assert len(failed) == 1 and "goes on without it" in failed[0]
    Recorder(monkeypatch, "mlflow", start_run=broken, active_run=nothing)
    with pytest.raises(TrainingError, match=r"train\.report_to: mlflow cannot begin \(ConnectionError: no route\)"):
        run(base, None, "mlflow")


def test_what_is_missing_or_unknown_is_told_before_anything_runs(base, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"wandb is not installed: pip install 'softprompt\[wandb\]'"):
        run(base, tmp_path / "x", "wandb")
    with pytest.raises(ConfigError, match="report_to"):
        run(base, tmp_path / "x", "tensorbord")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", TRACKERS)
def test_the_real_library_takes_what_ours_gives(base, tmp_path, monkeypatch, name):
    """Where it is installed; it writes on this machine only."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    told = []
    run(base, tmp_path / "out", name, notice=told.append)
    assert not [line for line in told if "report_to" in line]
    assert json.loads((tmp_path / "out/trackers.json").read_text())[name]
