"""A run's folder: one process at a time, checked before the work, resumed from what is whole, never poorer than before."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import tiny_rows, tiny_task
from models import tiny_base

from softprompt.errors import ArtifactError, ConfigError, DataError, SoftpromptError, TrainingError
from softprompt.holding import held, remove_leftovers
from softprompt.interrupts import Asked, Interrupted, deferred
from softprompt.training import checkpoints, load_run, sealed, train
from softprompt.training.known import is_known
from softprompt.training.loop import batch_at
from softprompt.training.places import run_folder
from softprompt.training.sealed import DamagedError, PickledError, read_state, write_state
from softprompt.training.state import State
from softprompt.training.sweep import sweep
from softprompt.training.sweep.trials import SweepContext
from softprompt.types import ignore_progress
from softprompt.yaml_file import dump

SETTINGS = {"max_steps": 4, "batch_size": 4, "lr": 0.02, "eval_every": 2}


@pytest.fixture(scope="module")
def base():
    return tiny_base()


def run(base, folder, method="soft", **how):
    return train(base, tiny_task(), method, folder, train=SETTINGS, rows=tiny_rows(8, 4, 4), check=False, **how)


def state() -> State:
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2, 3)}}
    look = {"value": 0.5, "error": 0.1, "nll": 0.2, "step": 2, "metric": "accuracy", "parameters": [torch.zeros(2, 3)]}
    groups = [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0]}]
    held = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    return State(3, [held, held[0]], {"state": moments, "param_groups": groups}, [look], look, 1, "", True, 0.25)


def test_a_state_comes_back_as_it_was(tmp_path):
    before = state()
    write_state(tmp_path / "it", "a run", before)
    run, after = read_state(tmp_path / "it")
    assert run == "a run" and after.optimizer["param_groups"] == before.optimizer["param_groups"]
    assert torch.equal(after.parameters[0], before.parameters[0]) and torch.equal(
        after.parameters[1], before.parameters[1]
    )
    assert torch.equal(after.optimizer["state"][0]["exp_avg"], torch.ones(2, 3))
    assert after.best["parameters"][0] is after.eval_history[0]["parameters"][0]  # written once
    assert (after.step, after.since, after.unseen, after.loss) == (3, 1, True, 0.25)


def test_a_state_of_a_version_with_other_names_is_read(tmp_path, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(sealed, "fields", lambda state: [SimpleNamespace(name=name) for name in vars(state)])
        old = state()
        old.looks = old.__dict__.pop("eval_history")
        del old.__dict__["evaluations"]
        write_state(tmp_path / "it", "a run", old)
    assert b"looks" in (tmp_path / "it").read_bytes()
    assert [one["step"] for one in read_state(tmp_path / "it")[1].eval_history] == [2]


def test_no_bit_of_a_checkpoint_can_change_unseen(tmp_path):
    write_state(tmp_path / "it", "a run", state())
    whole, silent = (tmp_path / "it").read_bytes(), []
    want = read_state(tmp_path / "it")
    for place in range(0, len(whole), 7):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        (tmp_path / "it").write_bytes(data)
        try:
            found = read_state(tmp_path / "it")
            silent += [place] if repr(found) != repr(want) else []
        except DamagedError:
            pass
    assert not silent
    for data in (b"", whole[:-1], whole + b"x", b"\xff" * 16, b"[]"):
        (tmp_path / "it").write_bytes(data)
        with pytest.raises(DamagedError):
            read_state(tmp_path / "it")
    torch.save({"run": "a run"}, tmp_path / "it")
    with pytest.raises(PickledError):
        read_state(tmp_path / "it")


def test_the_older_checkpoint_is_taken_where_the_newest_is_damaged(base, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    want = run(base, tmp_path / "whole").artifact

    class Cut(Exception):
        pass

    def cut(what, done, total):
        if what.startswith("training") and done == 3:
            raise Cut

    out, told = tmp_path / "cut", []
    with pytest.raises(Cut):
        run(base, out, progress=cut)
    (out / checkpoints.NEWEST).write_bytes((out / checkpoints.NEWEST).read_bytes()[:-9])
    with (out / "events.jsonl").open("ab") as file:
        file.write(b'5\n{"event": 3}\n{"event": "step", "step": "x"}\n[[[\n{"event": "st\xc3')
    found = run(base, out, notice=told.append).artifact
    assert len(told) == 1 and "checkpoint.pt is damaged" in told[0] and told[0].endswith("going on from step 2")
    assert {p.name: p.read_bytes() for p in want.iterdir()} == {p.name: p.read_bytes() for p in found.iterdir()}
    records = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert [one["step"] for one in records if one["event"] == "step"] == [1, 2, 3, 4]


def test_a_checkpoint_of_an_earlier_version_is_told(base, tmp_path):
    torch.save({"run": "x", "state": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match=r"earlier version.*--fresh"):
        run(base, tmp_path)
    assert run(base, tmp_path, fresh=True).artifact


@pytest.mark.parametrize("method", ["soft", "probe", "hard"])
def test_a_finished_run_keeps_what_it_has_measured(base, tmp_path, method):
    def look():
        return {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}

    run(base, tmp_path, method)
    told = []
    tested = run(base, tmp_path, method, test=True, notice=told.append)  # adds what is asked in addition
    assert "measured in addition: test" in told[0] and tested.metrics["test"].estimate.rows == 4
    before = look()
    again = run(base, tmp_path, method, notice=told.append)
    assert "finished; nothing was changed" in told[1] and look() == before
    assert again.recorded == {"test": tested.metrics["test"].estimate}
    manifest = json.loads((tmp_path / "artifact" / "manifest.json").read_text())
    assert (
        set(manifest["metrics"])
        == set(json.loads((tmp_path / "result.json").read_text())["metrics"])
        == {"dev", "test"}
    )


def test_results_of_other_settings_are_not_replaced(base, tmp_path):
    run(base, tmp_path, "probe", test=True)
    checkpoints.forget(tmp_path)
    with pytest.raises(TrainingError, match=r"results of a run with other settings.*--fresh"):
        run(base, tmp_path, "hard")
    assert run(base, tmp_path, "hard", fresh=True).artifact


@pytest.mark.parametrize("lost", ["artifact", "artifact/adapter_model.safetensors", "checkpoint.pt"])
def test_what_was_measured_survives_a_lost_artifact(base, tmp_path, lost):
    run(base, tmp_path, "probe", test=True)
    before = json.loads((tmp_path / "result.json").read_text())["metrics"]
    shutil.rmtree(tmp_path / lost) if (tmp_path / lost).is_dir() else (tmp_path / lost).unlink()
    assert set(run(base, tmp_path, "probe").recorded) == {"test"}
    assert json.loads((tmp_path / "result.json").read_text())["metrics"] == before
    assert set(json.loads((tmp_path / "artifact" / "manifest.json").read_text())["metrics"]) == {"dev", "test"}


def test_a_finished_run_is_known_again_where_the_cache_was_emptied(base, tmp_path, monkeypatch):
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    run(base, tmp_path / "run")
    file = tmp_path / "run" / "run.yaml"
    want = file.read_bytes()
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "another"))
    assert not is_known(file)
    run(base, tmp_path / "run")
    assert is_known(file) and file.read_bytes() == want
    file.unlink()
    run(base, tmp_path / "run")
    assert file.read_bytes() == want
    file.write_bytes(want.replace(b"seed: 0", b"seed: 7"))  # a person's own words stay, and are nobody's we know
    run(base, tmp_path / "run")
    assert b"seed: 7" in file.read_bytes() and not is_known(file)


def test_damaged_results_are_called_so(base, tmp_path):
    run(base, tmp_path, "hard")
    (tmp_path / "result.json").write_text('{"metrics":')
    with pytest.raises(TrainingError, match=r"result.json: is damaged"):
        run(base, tmp_path, "hard")
    (tmp_path / "result.json").unlink()
    assert run(base, tmp_path, "hard").metrics["dev"]


def test_places_are_looked_at_before_the_work(tmp_path):
    def refused(folder, error, words):
        with pytest.raises(error, match=words), run_folder(folder):
            pytest.fail("the work has begun")

    (tmp_path / "a" / "checkpoint.pt").mkdir(parents=True)
    refused(tmp_path / "a", SoftpromptError, "checkpoint.pt: cannot be written .it is a folder")
    (tmp_path / "b" / "artifact").mkdir(parents=True)
    (tmp_path / "b" / "artifact" / "thesis.txt").write_text("mine")
    refused(tmp_path / "b", ArtifactError, "thesis.txt")
    refused(tmp_path / ("n" * 300), SoftpromptError, "File name too long")
    (tmp_path / "c").write_text("a file")
    refused(tmp_path / "c", SoftpromptError, "is a file")
    refused(tmp_path / "c" / "d", SoftpromptError, "Not a directory")
    (tmp_path / "d").symlink_to("gone")
    refused(tmp_path / "d", SoftpromptError, "is a link to gone, which does not exist")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "d"]


def test_one_process_at_a_time_in_a_folder(tmp_path):
    script = (
        "import sys, pathlib; from softprompt.holding import held\nwith held(pathlib.Path(sys.argv[1]), 'busy'): pass"
    )
    with held(tmp_path / "it", "busy"), held(tmp_path / "it", "busy"):  # the same thread may
        done = subprocess.run([sys.executable, "-c", script, tmp_path / "it"], capture_output=True, text=True)
        assert f"busy (process {os.getpid()} on {platform.node()})" in done.stderr
        found = []

        def other():
            try:
                with held(tmp_path / "it", "busy"):
                    pass
            except SoftpromptError as error:
                found.append(str(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert "another thread" in found[0]
    assert not (tmp_path / "it").exists()  # made for it, and empty
    with held(tmp_path, "busy"):
        (tmp_path / "kept").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_leftovers_of_killed_runs_go(tmp_path):
    for name in (".checkpoint.pt.0123abcd.tmp", ".mine.0123abcd.tmp", ".checkpoint.pt.tmp", "artifact.tmp"):
        (tmp_path / name).write_text("")
    for name in (".artifact.0123abcd.tmp", ".artifact.0123abcd.old"):
        (tmp_path / name).mkdir()
    (tmp_path / ".artifact.0123abcd.old" / "manifest.json").write_text("{}")
    remove_leftovers(tmp_path, {"checkpoint.pt", "artifact"})
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {".mine.0123abcd.tmp", ".checkpoint.pt.tmp", "artifact.tmp", "artifact"}
    assert (tmp_path / "artifact" / "manifest.json").exists()  # what was moved away came back


@pytest.fixture
def plain_signals():
    """A shell's background job ignores Ctrl-C, and Ray leaves a handler of its own; ours stand behind foreign ones."""
    plain = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in plain.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("during", ["training", "evaluating"])
def test_the_first_signal_ends_the_step_and_keeps_it(base, tmp_path, number, during, plain_signals):
    want, seen, handlers = run(base, tmp_path / "whole").artifact, [], [signal.getsignal(n) for n in (1, 2, 15)]

    def send(what, done, total):
        seen.append(what)
        if what.startswith(during) and not any(name.startswith(during) for name in seen[:-1]):
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match=r"goes on from step 2") as stop:
        run(base, tmp_path / "cut", progress=send)
    assert stop.value.number == number and [signal.getsignal(n) for n in (1, 2, 15)] == handlers
    kept = read_state(tmp_path / "cut" / "checkpoint.pt")[1]
    assert kept.step == 2 and kept.unseen  # dev is looked at when it goes on
    found = run(base, tmp_path / "cut").artifact
    assert {p.name: p.read_bytes() for p in want.iterdir()} == {p.name: p.read_bytes() for p in found.iterdir()}


def test_a_run_that_goes_on_says_so_and_counts_the_seconds_before(base, tmp_path, plain_signals):
    def send(what, done, total):
        if what.startswith("training"):
            os.kill(os.getpid(), signal.SIGINT)

    told: list[str] = []
    with pytest.raises(Interrupted):
        run(base, tmp_path, progress=send, notice=told.append)
    assert not told
    log = tmp_path / "events.jsonl"
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    before = [event | ({"seconds": 1000.0} if event["event"] == "step" else {}) for event in events]
    log.write_text("".join(json.dumps(event) + "\n" for event in before), encoding="utf-8")
    os.utime(tmp_path / "checkpoint.pt", (86400.0 * 365,) * 2)
    steps = [event["step"] for event in events if event["event"] == "step"]
    result = run(base, tmp_path, notice=told.append)
    told, lines = [line for line in told if "going on" in line], told
    assert told == [f"going on from step {steps[-1]} of 4 (checkpoint of 1971-01-01 {lines[0][-6:-1]})"]
    assert 1000 * len(steps) < result.seconds["train"] < 1000 * len(steps) + 500
    again = run(base, tmp_path, notice=lines.append, test=True)  # nothing is left but to measure
    assert again.seconds["train"] > 1000 * len(steps) and len([line for line in lines if "going on" in line]) == 1


def test_before_there_is_a_checkpoint_an_interruption_says_so(base, tmp_path):
    def send(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="there is no checkpoint yet, so the same command begins anew"):
        train(base, tiny_task(), "infix", tmp_path / "it", rows=tiny_rows(8, 4, 4), check=False, progress=send)
    with pytest.raises(Interrupted, match="a run without a folder keeps nothing"):
        train(base, tiny_task(), "infix", rows=tiny_rows(8, 4, 4), check=False, progress=send)
    assert checkpoints.goes_on(tmp_path) == "there is no checkpoint yet, so the same command begins anew"


def test_only_plain_handlers_of_the_main_thread_are_taken(plain_signals):
    mine, kept = (lambda *_: None), signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, mine)
    try:
        with deferred() as asked:
            assert signal.getsignal(signal.SIGTERM) is mine  # of the program around us
            os.kill(os.getpid(), signal.SIGINT)
            assert asked.number == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):  # the second one
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, kept)
    found = []

    def elsewhere():
        with deferred() as asked:
            found.append(asked)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [Asked()]


def test_pruning_keeps_other_lengths_of_the_same_artifact(base, tmp_path):
    from softprompt.artifact import load
    from softprompt.errors import ConfigError
    from softprompt.training.prune import prune

    short = {"max_steps": 1, "batch_size": 4, "lr": 0.02}
    one = load(run(base, tmp_path / "one", {"name": "soft", "length": 4}).artifact)
    how = {"train": short, "rows": tiny_rows(8, 4, 4), "importance_rows": 2}
    for lengths in ([3], [2]):
        prune(base, tiny_task(), one, lengths, tmp_path / "pruned", **how)
    written = json.loads((tmp_path / "pruned" / "prune.json").read_text())
    assert [found["length"] for found in written["lengths"]] == [4, 2, 3]
    other = load(run(base, tmp_path / "other", {"name": "soft", "length": 4}, seed=1).artifact)
    with pytest.raises(ConfigError, match="holds lengths of another artifact"):
        prune(base, tiny_task(), other, [1], tmp_path / "pruned", **how)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "{task: 5, method: soft}",
            "task: expected a ready task's name, a file, or the task itself as a mapping .got 5",
        ),
        ("{task: x, method: soft, train: }", "train: expected a mapping of keys to values .got null"),
        ("{task: x, method: soft, seed: yes}", "seed: expected a number .got true"),
        ("{task: x, method: soft, train: {lr: on}}", "train.lr: expected a number .got true"),
        ("{task: x, method: soft, train: {lr: 1e400}}", "train.lr: Input should be a finite number"),
        ("{task: x, method: soft, cache: {ram_gb: .inf}}", "cache.ram_gb: Input should be a finite number"),
        ("{task: x, method: soft, seed: 20261129123456789}", "seed: Input should be less than 4398046511104"),
        ("{task: x, method: soft, base: ''}", "base.name: String should have at least 1 character"),
    ],
)
def test_settings_of_wrong_kinds_are_told_in_the_users_words(tmp_path, text, words):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_run(tmp_path / "run.yaml", [])


def test_a_seed_given_in_python_is_looked_at_before_the_work(base, tmp_path):
    for seed in (1.5, True, None, 2**63):
        with pytest.raises(ConfigError, match="seed: "):
            run(base, tmp_path / "x", seed=seed)
    assert not (tmp_path / "x").exists()
    order = [batch_at(list(range(6)), 0, 2, seed) for seed in (2**42 - 1, -(2**42))]  # the largest can be used
    assert all(len(rows) == 2 for rows in order)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["method.init=artifact"], "name the folder in method.artifact"),
        (["method.init=artifact", "method.artifact=gone"], "gone: no such folder"),
        (["task=task.yaml,gone.yaml"], "gone.yaml: no such file"),
        (["method.name=soft,sotf"], "no method 'sotf'"),
        (["seed=1,1"], "two trials would be called 'seed=1'"),
        (["task.verbalizer=[good, bad]", "task.verbalizer.none=x"], "is given before it|not a mapping"),
        (["task.verbalizer={good: good, fine: fine}"], "rows cannot be used"),
        (["seed=0,1", "task.data.split.dev=0"], "a sweep chooses by dev"),
    ],
)
def test_a_sweep_looks_at_every_trial_before_a_base_is_loaded(tmp_path, monkeypatch, settings, words):
    monkeypatch.chdir(tmp_path)
    rows = [row.values for split in tiny_rows(8, 4, 4).values() for row in split]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {**tiny_task().spec.model_dump(exclude_none=True), "data": {"source": "rows.jsonl", "split": {"train": 8}}}
    Path("task.yaml").write_text(dump(task))
    Path("run.yaml").write_text("{task: task.yaml, method: soft, base: none-is-loaded}")
    with pytest.raises(SoftpromptError, match=words):
        sweep(Path("run.yaml"), settings, Path("out"))


def test_trials_of_a_sweep_share_rows_only_where_they_read_them_alike():
    told: list[str] = []
    context = SweepContext(ignore_progress, told.append)
    rows = [{"text": f"joy {place}", "label": "good" if place % 2 else "bad"} for place in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
        data = {"source": str(file), "split": {"train": 4, "dev": 2, "test": 2}}
        first, again = context.read(tiny_task(data=data)), context.read(tiny_task(data=data, name="other"))
        assert again is first and len(told) == 1 and "left out" in told[0]
        with pytest.raises(DataError, match="rows cannot be used"):
            context.read(tiny_task(data=data, verbalizer={"good": "good", "fine": "fine"}))
