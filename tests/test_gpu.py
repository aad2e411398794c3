"""What needs a CUDA device: training in bf16, and the speed benchmark on it. Run with `pytest -m gpu`.

Others lie where their subject is: test_base.py (as on the CPU), test_quantized.py (int8, nf4 and memory), test_parallel.py.
"""

from __future__ import annotations

import pytest
import torch
from contract.cases import LEARNING, name_of
from helpers import tiny_rows, tiny_task
from models import tiny_model, tiny_tokenizer

from softprompt.base import Base
from softprompt.training import train

pytestmark = pytest.mark.gpu
SETTINGS = {"epochs": 4, "batch_size": 8, "patience": 20}


@pytest.mark.parametrize("how", ["bf16 base", "autocast", "autocast and checkpointing"])
@pytest.mark.parametrize("method", LEARNING, ids=name_of)
def test_every_method_learns_in_bf16(method, how):
    model = tiny_model("llama").cuda()
    base = Base(model.to(torch.bfloat16) if how == "bf16 base" else model, tiny_tokenizer())
    settings = dict(SETTINGS)
    if "autocast" in how:
        settings["autocast"] = "bf16"
    if "checkpointing" in how:
        settings["gradient_checkpointing"] = True
    run = train(base, tiny_task(), method, train=settings, rows=tiny_rows())
    losses = [event["loss"] for event in run.events if event["event"] == "step"]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert all(value.dtype == torch.float32 for value in run.prepared.method.export().values())
    assert next(event for event in run.events if event["event"] == "trained")["peak_cuda_gb"] > 0


def test_checkpointing_takes_less_memory():
    peaks = []
    for gradient_checkpointing in (False, True):
        base = Base.load("smollm2", device="cuda")
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        settings = {"max_steps": 2, "batch_size": 16, "gradient_checkpointing": gradient_checkpointing}
        train(base, tiny_task(), {"name": "prefix", "length": 100}, train=settings, rows=tiny_rows(64), check=False)
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < 0.7 * peaks[0]


@pytest.mark.parametrize("case", ["soft-p20", "prefix", "lora", "full"])
def test_the_benchmark_runs_there_with_equal_losses(case):
    """Its figures are for people to read (`softprompt bench speed`); a test does not judge them."""
    from softprompt.benchmarks.speed.main import main

    (row,) = main("smollm2", steps=3, only=[case])["rows"]
    print(case, "times faster:", row["speedup"], "memory:", row["memory_ratio"])
    assert row["losses_equal"] and row["our_peak_gb"] > 0
