"""Several processes give what one gives: losses, tensors, metrics; each keeps its own rows; they end, and fail, together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from helpers import tiny_rows
from models import tiny_model, tiny_tokenizer
from parallel_worker import CASES, ROWS, run
from safetensors.torch import load_file

from softprompt.training.loop import batch_at

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
}


def start(*args, cwd, processes: int = 2, cpu: bool = True) -> subprocess.Popen:
    """`torchrun`: a launcher and its processes, in a session of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    env |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""} if cpu else {}
    return subprocess.Popen(
        [*launcher, "--master-port", str(port), *map(str, args)],
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
    return load_file(folder / "artifact" / "adapter_model.safetensors")


def losses(folder: Path) -> list[float]:
    return [event["loss"] for event in events(folder) if event["event"] == "step"]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Every case, trained by two processes and by one."""
    folder = tmp_path_factory.mktemp("both")
    process = start(TESTS / "parallel_worker.py", folder, cwd=folder)
    for name in CASES:
        run(name, folder / "one" / name)
    out, err = finish(process)
    assert process.returncode == 0, err
    return folder, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_what_one_gives(both, name):
    folder, ranks = both
    assert [rank["world"] for rank in ranks] == [2, 2]
    one, two = ranks[0]["found"][name], ranks[1]["found"][name]
    assert {**one, "kept": 0} == {**two, "kept": 0}  # the same to the last bit: tensors, metrics, best step
    if name != "probe":
        assert losses(folder / name) == pytest.approx(losses(folder / "one" / name), abs=1e-6, rel=1e-6)
        assert len(losses(folder / name)) == 12
    for key, value in tensors(folder / "one" / name).items():
        torch.testing.assert_close(tensors(folder / name)[key], value, atol=1e-6, rtol=1e-6)
    looks = [
        [(event["step"], event["value"]) for event in events(folder / where) if event["event"] == "dev"]
        for where in (name, f"one/{name}")
    ]
    assert looks[0] == looks[1]
    results = [json.loads((folder / where / "result.json").read_text()) for where in (name, f"one/{name}")]
    assert results[0]["metrics"] == results[1]["metrics"] and results[0]["best_step"] == results[1]["best_step"]


@pytest.mark.parametrize("name", ["infix", "upper-prefix", "cue-lora"])
def test_each_process_encodes_its_own_rows_only(both, name):
    kept = [rank["found"][name]["kept"] for rank in both[1]]
    assert kept == [7 + 4, 6 + 3]  # of 13 training and 7 dev rows


def test_a_process_may_have_no_row_of_a_batch():
    batches = [batch_at(range(ROWS["train"]), step, 4, 3) for step in range(12)]
    shares = [[sum(place % 2 == rank for place in batch) for rank in range(2)] for batch in batches]
    assert [0, 1] in shares or [1, 0] in shares
    assert any(abs(one - two) >= 2 for one, two in shares)
