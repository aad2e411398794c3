"""Several processes give what one gives: losses, tensors, metrics; each keeps its own rows; they end, and fail, together."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from forked import Forked
from helpers import tiny_rows
from models import tiny_model, tiny_tokenizer
from parallel_worker import CASES, ROWS, STEPS, run
from safetensors.torch import load_file

from softprompt.base import Base
from softprompt.tasks import Task
from softprompt.training import load_run, train
from softprompt.training.loop import batch_at
from softprompt.training.sealed import read_state

pytest.importorskip("accelerate")
TESTS = Path(__file__).parent
RUN = {
    "task": "task.yaml",
    "method": {"name": "infix", "length": 3},
    "train": {"epochs": 4, "batch_size": 4, "lr": 0.05, "eval_every": 5, "patience": 50},
}
TASK = {
    "version": 1,
    "name": "tiny",
    "data": {"train": "train.jsonl", "dev": "dev.jsonl"},
    "template": {"instruction": "Good or bad? ", "input": "Text: {{ text }}", "cue": "\nIt is:"},
    "verbalizer": {"good": "good", "bad": "bad"},
    "scoring": {"over": "vocabulary"},
}


def start(
    *args, cwd, processes: int = 2, cpu: bool = True, fsdp: bool = False, fresh: bool = False
) -> subprocess.Popen:
    """`torchrun`: a launcher and its processes; with what `accelerate launch --use_fsdp` adds.

    The launcher is torch's own. It and its processes are forked from one that has all loaded (forked.py), for a fresh
    interpreter needs seconds of a processor for it; `fresh`: they are interpreters of their own, as a user has them.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", str(port)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    env |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""} if cpu else {}
    env |= {"ACCELERATE_USE_FSDP": "true"} if fsdp else {}
    popen = subprocess.Popen
    if not fresh:
        popen, launcher = Forked, [*launcher, "--start-method", "fork", "--run-path", str(TESTS / "forked.py")]
    return popen(
        [sys.executable, *launcher, *map(str, args)],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> tuple[str, str]:
    """Wait for it; what it printed."""
    try:
        return process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError("hangs: " + process.communicate()[1]) from None


def events(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = (folder / "artifact").glob("*model.safetensors")  # of full fine-tuning it is a whole model
    return load_file(file)


def losses(folder: Path) -> list[float]:
    return [event["loss"] for event in events(folder) if event["event"] == "step"]


# In the default run each way of learning: keys and values, states that are kept, a branch, all weights, a head, two together.
FEW = ("upper-prefix", "infix", "cue-lora", "full", "joint", "probe", "t5-infix")
MORE = tuple(name for name in CASES if name not in FEW)  # joint has soft and LoRA in it


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Cases, trained by two processes and by one: a few at once, for a start costs as much as a case."""
    trained = {}

    def get(name):
        group = next(some for some in (FEW[:4], FEW[4:], MORE) if name in some)
        if group not in trained:
            trained[group] = two_and_one(tmp_path_factory.mktemp("both"), group)
        return trained[group]

    return get


def two_and_one(folder: Path, names, **how) -> tuple[Path, list[dict]]:
    """Train cases by two processes, and in `one` by this one; what each of the two found."""
    process = start(TESTS / "parallel_worker.py", folder, *names, cwd=folder, **how)
    for name in names:
        run(name, folder / "one" / name)
    _, err = finish(process)
    assert process.returncode == 0, err
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [rank["world"] for rank in ranks] == [2, 2]
    return folder, [rank["found"] for rank in ranks]


@pytest.mark.parametrize("name", [*FEW, *(pytest.param(name, marks=pytest.mark.full) for name in MORE)])
def test_two_processes_give_what_one_gives(both, name):
    folder, ranks = both(name)
    one, two = ranks[0][name], ranks[1][name]
    apart = {"kept": 0, "heard": []}
    assert one | apart == two | apart  # the same to the last bit: tensors, metrics, best step
    assert one["heard"] == events(folder / name) and not two["heard"]  # the first process alone is told
    same(folder / name, folder / "one" / name, steps=0 if name == "probe" else STEPS)


def same(folder: Path, one: Path, steps: int) -> None:
    """Both runs have the same losses, tensors, dev evaluations and metrics."""
    if steps:
        assert losses(folder) == pytest.approx(losses(one), abs=1e-6, rel=1e-6)
        assert len(losses(folder)) == steps
    found, expected = tensors(folder), tensors(one)
    assert found.keys() == expected.keys()
    # processes have other rows, so other groups attend together (base/groups.py) and sums have another order
    allowed = 5e-6 if folder.name in ("upper-prefix", "spike-two") else 1e-6  # the second takes steps six times as long
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=allowed, rtol=allowed)
    looks = [
        [(event["step"], event["value"]) for event in events(where) if event["event"] == "dev"]
        for where in (folder, one)
    ]
    assert looks[0] == looks[1]
    results = [json.loads((where / "result.json").read_text()) for where in (folder, one)]
    assert results[0]["metrics"] == results[1]["metrics"] and results[0]["best_step"] == results[1]["best_step"]


@pytest.mark.parametrize("name", ["infix", "upper-prefix", "cue-lora"])
def test_each_process_encodes_its_own_rows_only(both, name):
    kept = [rank[name]["kept"] for rank in both(name)[1]]
    assert kept == [7 + 4, 6 + 3]  # of 13 training and 7 dev rows


def test_a_process_may_have_no_row_of_a_batch():
    batches = [batch_at(range(ROWS["train"]), step, 4, 3) for step in range(STEPS)]
    shards = [[sum(place % 2 == rank for place in batch) for rank in range(2)] for batch in batches]
    assert [0, 1] in shards or [1, 0] in shards
    assert any(abs(one - two) >= 2 for one, two in shards)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a base, rows, task and run file, and the run of one process."""
    folder = tmp_path_factory.mktemp("work")
    tiny_model("llama").save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    for name, rows in tiny_rows(26, 8, 0).items():
        if rows:
            lines = [json.dumps(row.values) + "\n" for row in rows]
            (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "task.yaml").write_text(yaml.safe_dump(TASK), encoding="utf-8")
    (folder / "run.yaml").write_text(yaml.safe_dump({**RUN, "base": str(folder / "base")}), encoding="utf-8")
    spec = load_run(folder / "run.yaml", [])
    task = Task.load(spec.task)
    train(Base.load(spec.base.name), task, spec.method, folder / "one", train=spec.train)
    return folder


SLOW = """
import os, sys, time
from softprompt.training import checkpoints, loop
checkpoints.SECONDS = 0.0
real = loop.refuse_not_finite

def slowly(*args):
    time.sleep(0.1)
    real(*args)

loop.refuse_not_finite = slowly
from softprompt.cli import main
main()
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the orphaned processes in /proc")
@pytest.mark.parametrize("fresh", [False, pytest.param(True, marks=pytest.mark.full)])
def test_killed_runs_go_on_and_only_the_first_process_is_heard(work, fresh):
    (work / "slow.py").write_text(SLOW)
    shutil.rmtree(work / "two", ignore_errors=True)
    kill_after(8, start("slow.py", "train", "run.yaml", "--out", "two", cwd=work, fresh=fresh), work, work / "two")
    assert not (work / "two" / "artifact").exists()
    process = start("-m", "softprompt", "train", "run.yaml", "--out", "two", cwd=work, fresh=fresh)
    out, err = finish(process)
    assert process.returncode == 0, err
    assert out.count("dev accuracy") == 1 and out.count("artifact: two/artifact") == 1, out
    told = [line for line in err.splitlines() if line.startswith(("training", "encoding"))]
    assert told and len(told) == len(set(told)) and "Traceback" not in err, err
    steps = [event["step"] for event in events(work / "two") if event["event"] == "step"]
    assert steps == list(range(1, 29))  # every step once
    assert sum(event["event"] == "resumed" for event in events(work / "two")) == 1
    assert losses(work / "two") == pytest.approx(losses(work / "one"), abs=1e-6, rel=1e-6)
    for key, value in tensors(work / "one").items():
        torch.testing.assert_close(tensors(work / "two")[key], value, atol=1e-6, rtol=1e-6)
    # (a process that is killed while it writes leaves a hidden file)
    names = {path.name for path in (work / "two").iterdir() if not path.name.startswith(".")}
    assert names == {"artifact", "checkpoint.pt", "checkpoint.before.pt", "events.jsonl", "result.json", "run.yaml"}


SEARCHING = """
from softprompt.training.sweep.study import Study
Study.is_worse = lambda self: self.done == 1
from softprompt.cli import main
main()
"""


def test_a_search_asks_in_the_first_process_and_prunes_in_all(work):
    pytest.importorskip("optuna")
    (work / "searching.py").write_text(SEARCHING)
    settings = ["train.lr=0.01..0.1:log", "train.epochs=2"]
    process = start("searching.py", "sweep", "run.yaml", *settings, "--optuna", "3", "--out", "search", cwd=work)
    out, err = finish(process)
    assert process.returncode == 0, err
    report = json.loads((work / "search" / "sweep.json").read_text())
    (pruned,) = report["pruned"]
    assert len(report["trials"]) == 2 and (pruned["why"], pruned["step"]) == ("median", 5)
    assert out.count("best by dev") == 1 and out.count("pruned at step 5") == 1, out
    steps = [event["step"] for event in events(work / "search" / report["best"]) if event["event"] == "step"]
    assert steps == list(range(1, 15))


@pytest.mark.parametrize("fresh", [False, pytest.param(True, marks=pytest.mark.full)])
def test_sigterm_ends_all_processes_behind_the_same_step(work, fresh):
    """A scheduler's SIGTERM goes to the launcher, which sends it on to its processes, each at another moment."""
    (work / "slow.py").write_text(SLOW)
    folder = work / f"stopped-{fresh}"
    process = start("slow.py", "train", "run.yaml", "--out", folder.name, cwd=work, fresh=fresh)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "checkpoint.pt").exists() and len(losses(folder)) >= 4:
            break
        time.sleep(0.02)
    process.terminate()
    _, err = finish(process)
    assert (folder / "checkpoint.pt").exists(), err
    run, state = read_state(folder / "checkpoint.pt")
    told = [line for line in err.splitlines() if "goes on from step" in line]
    assert told == [f"ended by SIGTERM; the same command goes on from step {state.step}"], err
    assert run and events(folder)[-1] == {"event": "interrupted", "step": state.step} and state.step < 28


SPIKING = """
import torch
from softprompt.cli import main

real = torch.optim.AdamW.step

def kick(self, *args):
    real(self, *args)
    group = self.param_groups[0]
    for parameter in group["params"]:
        if int(self.state[parameter]["step"]) == 20 and group["lr"] > 0.2:
            parameter.data.mul_(-30)

torch.optim.AdamW.step = kick
main()
"""


def test_all_processes_go_back_from_a_spike(work):
    (work / "spiking.py").write_text(SPIKING)
    settings = ["train.lr=0.3", "train.schedule=constant", "train.warmup=0", "train.epochs=6"]
    for processes, name in enumerate(("spike-one", "spike-two"), 1):
        process = start("spiking.py", "train", "run.yaml", *settings, "--out", name, cwd=work, processes=processes)
        _, err = finish(process)
        assert process.returncode == 0, err
        assert err.count("warning: spike: the loss rose") == 1, err
    spikes = [
        event for name in ("spike-one", "spike-two") for event in events(work / name) if event["event"] == "spike"
    ]
    assert [(event["step"], event["back_to"], event["factor"]) for event in spikes] == [(25, 16, 0.5)] * 2
    same(work / "spike-two", work / "spike-one", steps=25 + 26)


def kill_after(steps: int, process: subprocess.Popen, work: Path, folder: Path) -> None:
    """Kill a run (a launcher that works in `work`) once it has taken so many steps and left a checkpoint."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "checkpoint.pt").exists() and len(losses(folder)) >= steps:
            break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)  # the launcher; its processes have sessions of their own
    for rank in workers(process.pid, work):
        os.kill(rank, signal.SIGKILL)
    process.communicate()


def workers(launcher: int, folder: Path) -> list[int]:
    """Processes that still run in this folder (the launcher is gone, so they have no parent to be found by)."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").resolve() == folder.resolve():
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if pid not in (launcher, os.getpid())]


@pytest.mark.parametrize("name", ["tied", "again", pytest.param("full", marks=pytest.mark.full)])
def test_fsdp_gives_what_one_process_gives(tmp_path, name):
    """Full fine-tuning. (`full`: in the default run a checkpoint below has the same settings.)"""
    folder, ranks = two_and_one(tmp_path, [name], fsdp=True)
    assert ranks[0][name] | {"heard": []} == ranks[1][name]
    same(folder / name, folder / "one" / name, steps=STEPS)
    whole = sum(value.numel() for value in tensors(folder / name).values())
    assert ranks[0][name]["parameters"] == whole
    assert ranks[0][name]["held"] == {"weights": whole / 2, "gradients": whole / 2, "moments": whole}  # of 2 moments


CHAINS = {  # after how many steps a run is killed, and how it was started; how it ends
    "on and off": ([(3, {"fsdp": True}), (6, {"processes": 1})], {"fsdp": True}, 12),
    "long": (
        [(6, {"fsdp": True}), (12, {"processes": 1}), (18, {"fsdp": True}), (24, {"fsdp": False})],
        {"processes": 3, "fsdp": True},
        28,
    ),
}


@pytest.mark.full
@pytest.mark.parametrize("chain", ["on and off", "long"])
def test_a_checkpoint_of_fsdp_is_one_for_any_number_of_processes(work, chain):
    (work / "slow.py").write_text(SLOW)
    killed, last, steps = CHAINS[chain]
    name = chain.replace(" ", "-")
    settings = {**RUN, "base": str(work / "base"), "method": "full"}
    settings["train"] = {**RUN["train"], "lr": 1e-4, "max_steps": steps}
    (work / f"{name}.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    spec = load_run(work / f"{name}.yaml", [])
    train(Base.load(spec.base.name), Task.load(spec.task), spec.method, work / f"{name}-one", train=spec.train)
    command, out = ["train", f"{name}.yaml", "--out", name], work / name
    for taken, how in killed:
        kill_after(taken, start("slow.py", *command, cwd=work, **how), work, out)
        assert not (out / "artifact").exists()
        _, held = read_state(out / "checkpoint.pt")
        assert {type(value) for value in held.parameters} == {torch.Tensor}
    process = start("-m", "softprompt", *command, cwd=work, **last)
    told, err = finish(process)
    assert process.returncode == 0, err
    assert told.count(f"artifact: {name}/artifact") == 1 and "Traceback" not in err, err
    assert [event["step"] for event in events(out) if event["event"] == "step"] == list(range(1, steps + 1))
    assert sum(event["event"] == "resumed" for event in events(out)) == len(killed)
    same(out, work / f"{name}-one", steps=steps)


REFUSED = """
import os, sys
from softprompt.cli import main
from softprompt.parallel import processes

for more in (["run.yaml"], ["full.yaml", "method.train=bitfit"], ["full.yaml", "method.layers=1-"],
             ["full.yaml", "train.optimizer=adafactor"], ["full.yaml"]):
    if more == ["full.yaml"]:
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
        processes.cache_clear()
    sys.argv = ["softprompt", "train", *more, "--out", "refused"]
    try:
        main()
    except SystemExit as stop:
        assert stop.code == 2
"""


def test_what_fsdp_cannot_do_is_refused_in_one_line(work):
    (work / "full.yaml").write_text(yaml.safe_dump({**RUN, "base": str(work / "base"), "method": "full"}))
    (work / "refused.py").write_text(REFUSED)
    process = start("refused.py", cwd=work, fsdp=True)
    _, err = finish(process)
    assert process.returncode == 0, err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 5 and "Traceback" not in err, err
    assert all("FSDP" in line and "start method" in line for line in errors[:3])
    assert "'infix'" in errors[0] and "adafactor does not work on shards" in errors[3]
    assert errors[4].startswith("error: DEEPSPEED is not supported")
    assert not (work / "refused").exists()


FAILING_SHARDS = """
import os, sys
from softprompt.cli import main
from softprompt.answers.chosen import Chosen
from softprompt.errors import DataError

real, calls, rank, kind = Chosen.loss, [], os.environ["RANK"], sys.argv[1]

def failing(self, engine, examples, learned):
    calls.append(1)
    found, count = real(self, engine, examples, learned)
    if len(calls) == 3 and rank == "1":
        if kind == "forward":
            raise DataError("only here")
        found.register_hook(lambda gradient: 1 / 0)
    return found, count

Chosen.loss = failing
sys.argv = ["softprompt", "train", "full.yaml", "--out", kind]
main()
"""


@pytest.mark.parametrize(
    ("kind", "line"), [("forward", "error: only here"), ("backward", "error: another process of this run ended")]
)
@pytest.mark.parametrize("fresh", [False, pytest.param(True, marks=pytest.mark.full)])
def test_an_error_of_one_process_ends_a_run_with_fsdp(work, kind, line, fresh):
    """(In the backward the others cannot be told: the process that fails shows its traceback, the others lose it.)"""
    (work / "full.yaml").write_text(yaml.safe_dump({**RUN, "base": str(work / "base"), "method": "full"}))
    (work / "failing_shards.py").write_text(FAILING_SHARDS)
    process = start("failing_shards.py", kind, cwd=work, fsdp=True, fresh=fresh)
    _, err = finish(process)
    assert process.returncode != 0
    errors = [found for found in err.splitlines() if found.startswith("error: ")]
    assert "terminate called" not in err, err  # what gloo says where it is left to the interpreter's end
    if kind == "forward":
        assert errors == [line] and "ZeroDivisionError" not in err, err
    else:  # the launcher may end the first before it has said so
        assert "ZeroDivisionError" in err and (not errors or errors[0].startswith(line)), err


FAILING = """
import os, sys
from softprompt.cli import main
from softprompt.answers.chosen import Chosen
from softprompt.errors import DataError

real, calls, rank = Chosen.loss, [], os.environ["RANK"]

def failing(self, engine, examples, learned):
    calls.append(1)
    if len(calls) == 3 and rank == "1":
        if kind == "killed":
            os.kill(os.getpid(), 9)
        raise DataError("only here") if kind == "refused" else KeyError("x")
    return real(self, engine, examples, learned)

Chosen.loss = failing
for kind in ("misspelt", "refused", "mistake", "killed"):
    calls.clear()
    extra = ["method.lenght=3"] if kind == "misspelt" else []
    sys.argv = ["softprompt", "train", "run.yaml", *extra, "--out", kind]
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code
    except KeyError:
        code = "KeyError"
    with open(f"ends{rank}.txt", "a") as file:
        file.write(f"{kind}: {code}\\n")
"""


@pytest.mark.parametrize("fresh", [False, pytest.param(True, marks=pytest.mark.full)])
def test_an_error_of_one_process_ends_all_with_one_line(work, fresh):
    (work / "failing.py").write_text(FAILING)
    for rank in range(2):
        (work / f"ends{rank}.txt").unlink(missing_ok=True)
    process = start("failing.py", cwd=work, fresh=fresh)
    _, err = finish(process)
    assert process.returncode != 0
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) in (3, 4), err
    assert "did you mean 'length'" in errors[0]  # all refuse it; it is told once
    assert errors[1:3] == ["error: only here", "error: process 1: KeyError: 'x'"]
    ends = [(work / f"ends{rank}.txt").read_text().splitlines() for rank in range(2)]
    assert ends[0][:3] == ["misspelt: 2", "refused: 2", "mistake: 2"]
    assert ends[1] == ["misspelt: 2", "refused: 2", "mistake: 1"]  # with its traceback
    # of a killed process the launcher knows as soon as we do: it may end the first before that one has said so
    assert len(errors) == 3 or errors[3].startswith("error: another process of this run ended"), err
    assert len(errors) == 3 or ends[0][3] == "killed: 2"
    assert "Signal 9" in err or "SIGKILL" in err, err


def test_one_process_never_asks_accelerate(monkeypatch, tmp_path):
    """(transformers imports it by itself, so that it is not imported cannot be seen from outside.)"""
    from softprompt.errors import MissingExtraError
    from softprompt.parallel import Processes, processes

    monkeypatch.setitem(sys.modules, "accelerate", None)
    processes.cache_clear()
    try:
        assert type(processes()) is Processes
        run("soft", tmp_path)
        monkeypatch.setenv("WORLD_SIZE", "2")
        processes.cache_clear()
        with pytest.raises(MissingExtraError, match="softprompt\\[parallel\\]"):
            processes()
    finally:
        processes.cache_clear()


def test_each_process_takes_its_own_gpu(monkeypatch):
    from softprompt.base import loading

    monkeypatch.setattr(loading.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(loading.torch, "empty", lambda *args, **kwargs: None)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert [str(loading._device(name)) for name in ("auto", "cuda", "cpu")] == ["cuda:3", "cuda:3", "cpu"]
    monkeypatch.delenv("WORLD_SIZE")
    assert [str(loading._device(name)) for name in ("auto", "cuda")] == ["cuda", "cuda"]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs (NCCL takes one for each process)")
def test_two_gpus_give_what_one_gives(work):
    done = subprocess.run([sys.executable, "-m", "softprompt", "train", "run.yaml", "--out", "gpu"], cwd=work)
    assert done.returncode == 0
    process = start("-m", "softprompt", "train", "run.yaml", "--out", "gpus", cwd=work, cpu=False)
    _, err = finish(process)
    assert process.returncode == 0, err
    assert losses(work / "gpus") == pytest.approx(losses(work / "gpu"), abs=1e-4, rel=1e-4)
    for key, value in tensors(work / "gpu").items():
        torch.testing.assert_close(tensors(work / "gpus")[key], value, atol=1e-4, rtol=1e-4)
