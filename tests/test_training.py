"""The loop: resuming after kill -9 changes no bit, it stops when it should, and says what went wrong."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
import torch
from helpers import SLOW_RUN, killed_at, tiny_rows, tiny_task
from models import tiny_base

from softprompt.errors import ArtifactError, ConfigError, SoftpromptError, TrainingError
from softprompt.methods import make_method
from softprompt.renamed import with_first_keys
from softprompt.storage import digest_of
from softprompt.training import RunSpec, TrainSpec, checkpoints, load_run, train
from softprompt.training.loop import State, batch_at, learning_rate
from softprompt.training.results import recorded

SETTINGS = {"epochs": 4, "batch_size": 4, "lr": 0.02, "eval_every": 5, "patience": 50}

SCRIPT = f"""{SLOW_RUN}
from helpers import tiny_rows, tiny_task
from models import tiny_base

method = {{{{"name": "infix", "length": 3}}}}
train(tiny_base(), tiny_task(), method, {{out!r}}, train={{settings!r}}, rows=tiny_rows(), progress=slow)
"""


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.full  # by default `test_crashes.py` kills at random moments
def test_kill_9_at_any_moment_and_resume_is_bit_exact(tmp_path, forks):
    tests = str(Path(__file__).parent)
    whole = train(
        tiny_base(), tiny_task(), {"name": "infix", "length": 3}, tmp_path / "whole", train=SETTINGS, rows=tiny_rows()
    )
    script = SCRIPT.format(tests=tests, out=str(tmp_path / "killed"), settings=SETTINGS)
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    kills = sum(killed_at(script, moment, checkpoint, 0.02 * (moment % 3)) for moment in (3, 11, 19))
    assert kills == 3
    assert not (tmp_path / "killed" / "artifact").exists()
    done = train(
        tiny_base(), tiny_task(), {"name": "infix", "length": 3}, tmp_path / "killed", train=SETTINGS, rows=tiny_rows()
    )
    assert folder_bytes(whole.artifact) == folder_bytes(done.artifact)
    steps = [event["step"] for event in events(tmp_path / "killed") if event["event"] == "step"]
    assert steps == list(range(1, 25))  # every step once, though some ran twice
    assert any(event["event"] == "resumed" for event in events(tmp_path / "killed"))
    losses = [[e["loss"] for e in events(tmp_path / name) if e["event"] == "step"] for name in ("whole", "killed")]
    assert losses[0] == losses[1]


def events(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_finished_run_run_again_changes_nothing(tmp_path):
    runs = [train(tiny_base(), tiny_task(), "soft", tmp_path, train=SETTINGS, rows=tiny_rows()) for _ in range(2)]
    first = folder_bytes(runs[0].artifact)
    assert folder_bytes(runs[1].artifact) == first


def test_checkpoint_of_another_run_is_refused_and_fresh_starts_over(tmp_path):
    train(tiny_base(), tiny_task(), "soft", tmp_path, train=SETTINGS, rows=tiny_rows())
    other = {**SETTINGS, "lr": 0.01}
    before = folder_bytes(tmp_path / "artifact")
    with pytest.raises(TrainingError, match="--fresh"):
        train(tiny_base(), tiny_task(), "soft", tmp_path, train=other, rows=tiny_rows())
    assert folder_bytes(tmp_path / "artifact") == before
    train(tiny_base(), tiny_task(), "soft", tmp_path, train=other, rows=tiny_rows(), fresh=True)
    assert folder_bytes(tmp_path / "artifact") != before


def test_damaged_checkpoint_is_told(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    told = []
    train(tiny_base(), tiny_task(), "soft", tmp_path, train=SETTINGS, rows=tiny_rows(), notice=told.append)
    assert "checkpoint.pt is damaged" in told[0] and "starting from the beginning" in told[0]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are Unix")
def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path):
    """The file system says no in the middle of the file, which torch tells as something else."""
    import resource

    store, state = checkpoints.FolderStore(tmp_path, "a run"), State(step=1, parameters=[torch.ones(100)])
    store.save(state)
    state.parameters = [torch.zeros(300_000) for _ in range(2)]
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limits[1]))
    try:
        with pytest.raises(SoftpromptError, match=r"checkpoint\.pt: cannot be written \(File too large\)"):
            store.save(state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    held, _ = checkpoints.read_checkpoints(tmp_path, "a run")
    assert held is not None and torch.equal(held.parameters[0], torch.ones(100))


def test_nan_stops_with_step_and_rows(tmp_path, monkeypatch):
    from softprompt.answers.chosen import Chosen

    real, calls = Chosen.loss, []

    def poisoned(self, engine, examples, learned):
        calls.append(1)
        total, count = real(self, engine, examples, learned)
        return (total * float("nan") if len(calls) == 3 else total), count

    train(tiny_base(), tiny_task(), "soft", tmp_path, train={**SETTINGS, "epochs": 1}, rows=tiny_rows())
    before = folder_bytes(tmp_path / "artifact")
    monkeypatch.setattr(Chosen, "loss", poisoned)
    with pytest.raises(TrainingError, match=r"step 3: loss nan on rows train:\d+"):
        settings = {**SETTINGS, "epochs": 1}
        train(tiny_base(), tiny_task(), "soft", tmp_path, train=settings, rows=tiny_rows(), fresh=True, check=False)
    assert folder_bytes(tmp_path / "artifact") == before  # the earlier artifact stays
    assert events(tmp_path)[-1]["event"] == "not_finite"


def test_stops_when_the_lower_bound_reaches_the_target():
    spec = {**SETTINGS, "epochs": 60, "lr": 0.05, "target": 0.6, "patience": 500}
    result = train(tiny_base(), tiny_task(), {"name": "probe"}, train=spec, rows=tiny_rows())
    assert result.metrics["dev"].estimate.value > 0.9  # the task can be learned
    result = train(tiny_base(), tiny_task(), {"name": "prefix", "length": 8}, train=spec, rows=tiny_rows(96, 48))
    ended = next(event for event in result.events if event["event"] == "trained")
    looks = [event for event in result.events if event["event"] == "dev"]
    assert "reached the target" in ended["reason"], (ended, looks[-1])
    assert looks[-1]["interval"][0] >= 0.6 and all(look["interval"][0] < 0.6 for look in looks[:-1])


def test_stops_early_without_progress_and_keeps_the_best():
    spec = {**SETTINGS, "epochs": 40, "lr": 1e-9, "patience": 2}
    result = train(tiny_base(), tiny_task(), "soft", train=spec, rows=tiny_rows())
    ended = next(event for event in result.events if event["event"] == "trained")
    assert "no better dev" in ended["reason"] and ended["step"] < 240
    looks = [(event["value"], -event["nll"], event["step"]) for event in result.events if event["event"] == "dev"]
    assert result.best_step == max(looks)[2]


def test_order_of_rows_is_a_function_of_seed_and_step():
    rows = list(range(10))
    epoch = [row for step in range(3) for row in batch_at(rows, step, 4, seed=7)]
    assert sorted(epoch) == rows and epoch != rows
    assert batch_at(rows, 1, 4, seed=7) == batch_at(rows, 1, 4, seed=7) != batch_at(rows, 4, 4, seed=7)
    assert [len(batch_at(rows, step, 4, 0)) for step in range(6)] == [4, 4, 2, 4, 4, 2]


def test_learning_rate_curves():
    spec = TrainSpec(lr=1.0, max_steps=100, warmup=0.1, schedule="linear")
    assert [learning_rate(step, spec) for step in (0, 9, 10, 55)] == pytest.approx([1 / 11, 10 / 11, 1.0, 0.5])
    cosine = spec.model_copy(update={"schedule": "cosine"})
    assert learning_rate(55, cosine) == pytest.approx(0.5) and learning_rate(99, cosine) < 0.01
    assert learning_rate(99, spec.model_copy(update={"schedule": "constant"})) == 1.0


def test_clipping_bounds_the_gradient(monkeypatch):
    seen = []
    real = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self, *a: (seen.append(self.param_groups[0]["params"][0].grad.norm().item()), real(self, *a))[1],
    )
    train(tiny_base(), tiny_task(), "soft", train={**SETTINGS, "epochs": 1, "clip": 1e-3}, rows=tiny_rows())
    assert seen and max(seen) <= 1.001e-3


def test_nan_is_never_saved(tmp_path):
    result = train(tiny_base(), tiny_task(), "soft", tmp_path, train={**SETTINGS, "epochs": 1}, rows=tiny_rows())
    from softprompt.training import save

    before = folder_bytes(result.artifact)
    with torch.no_grad():
        result.prepared.method.parameters()[0][0, 0] = float("inf")
    with pytest.raises(ArtifactError, match="NaN or infinite"):
        save(result, result.artifact)
    assert folder_bytes(result.artifact) == before


def test_the_kept_evaluation_is_within_two_standard_errors_of_the_top(monkeypatch):
    from softprompt.metrics import Estimate
    from softprompt.training import loop

    class Found:
        def __init__(self, value, nll):
            self.estimate, self.nll = Estimate("accuracy", value, (value - 0.1, value + 0.1), 10), nll  # error .05

    for looks, best in (
        ([(0.5, 0.9), (0.9, 0.8), (0.81, 0.3), (0.79, 0.1), (0.9, 0.7)], 3),  # .79 is more than two errors below
        ([(0.85, 0.8), (0.8, 0.3), (0.97, 0.9)], 3),  # a new top puts an earlier choice out of reach
        ([(0.9, 0.8), (0.9, 0.7), (0.9, 0.7)], 2),  # of equals the first
        ([(0.82, 0.5), (0.7, 0.3), (0.9, 0.9), (0.79, 0.2)], 1),  # one beaten by none comes back within reach
    ):
        given = iter(looks)
        with monkeypatch.context() as patched:
            patched.setattr(loop, "evaluate_quickly", lambda *args, given=given: Found(*next(given)))
            settings = {"max_steps": len(looks), "batch_size": 4, "lr": 0.02, "eval_every": 1, "patience": 9}
            result = train(tiny_base(), tiny_task(), "infix", train=settings, rows=tiny_rows())
        assert result.best_step == best, looks


def test_what_the_best_dev_evaluation_found_is_not_asked_again(tmp_path, monkeypatch):
    """It is what asking the kept parameters again would find; a run that goes on from its end has to ask."""
    from softprompt.answers import evaluate
    from softprompt.training import job

    asked = []
    task = tiny_task(scoring={"over": "vocabulary"})
    monkeypatch.setattr(job, "evaluate", lambda *given: asked.append(given) or evaluate(*given))
    # so high a rate that the best is not the last
    how = {"train": {**SETTINGS, "lr": 0.5, "epochs": 6}, "rows": tiny_rows()}
    result = train(tiny_base(), task, "soft", tmp_path, **how)
    assert not asked and result.best_step < 36
    ready = result.prepared
    again = evaluate(ready, ready.splits["dev"])
    assert again == result.metrics["dev"]
    assert train(tiny_base(), task, "soft", tmp_path, **how).metrics == result.metrics and len(asked) == 1


def test_a_key_of_the_version_before_is_read_with_one_warning(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("task: sst2\nmethod: soft\ntrain: {checkpointing: true}\n")
    with pytest.warns(FutureWarning, match="checkpointing is now called train.gradient_checkpointing") as told:
        assert load_run(path, []).train.gradient_checkpointing
    assert len(told) == 1
    path.write_text("task: sst2\nmethod: soft\ntrain: {checkpointing: true, gradient_checkpointing: false}\n")
    with pytest.raises(
        ConfigError, match=r"train: checkpointing is now called .*, and both are given; remove checkpointing"
    ):
        load_run(path, [])


def test_a_key_of_the_version_before_names_the_same_run(tmp_path):
    """What that version began goes on here: the digest is made of the keys as they were called first."""
    settings = RunSpec(task="sst2", method="soft", train={"gradient_checkpointing": True}).model_dump()
    first = with_first_keys(RunSpec, settings)
    assert first["train"]["checkpointing"] is True and "gradient_checkpointing" not in first["train"]
    assert {**first, "train": None} == {**settings, "train": None}
    result = train(tiny_base(), tiny_task(), "soft", tmp_path, train={"max_steps": 1}, rows=tiny_rows())
    settings = json.loads(json.dumps(result.settings))
    settings["train"]["checkpointing"] = settings["train"].pop("gradient_checkpointing")
    assert recorded(tmp_path, digest_of(settings)) is not None


def test_few_rows_get_more_epochs_unless_told():
    method = make_method("infix")
    assert TrainSpec().filled(method, 1024).epochs == 3
    few = TrainSpec().filled(method, 64)
    assert (few.batch_size, few.epochs, few.max_steps, few.eval_every) == (16, 24, 96, 16)
    assert TrainSpec(epochs=2).filled(method, 64).max_steps == 4
    soft = TrainSpec().filled(make_method("soft"), 64)  # its batches are smaller, too
    assert (soft.batch_size, soft.epochs, soft.max_steps) == (8, 18, 144)
    assert TrainSpec().filled(make_method("soft"), 1024).batch_size == 16
    told = TrainSpec(epochs=3).filled(make_method("soft"), 64)
    assert (told.batch_size, told.max_steps) == (16, 12)
