"""Our side of the speed benchmark: `python -m softprompt.benchmarks.ours`."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import torch
from softprompt.benchmarks.cases import INIT_TEXT, TEMPLATE
from softprompt.benchmarks.worker import Step, serve

from softprompt.base import Base
from softprompt.data import Row
from softprompt.engine import run
from softprompt.methods import make_method
from softprompt.serving import compile_prompt
from softprompt.tasks import Task
from softprompt.training import TrainSpec, prepare
from softprompt.training.optimizers import make_optimizer


def task_for(instruction: str = "") -> Task:
    """The task that both sides train on."""
    words = {"positive": "positive", "negative": "negative"}
    return Task.load({"name": "speed", "template": {**TEMPLATE, "instruction": instruction}, "verbalizer": words})


def set_up(request: dict[str, Any]) -> tuple[Step, dict[str, Any]]:
    """Training steps of one case, or serving steps of mixed or equal prefixes."""
    base = Base.load(request["base"])
    if request.get("prefixes"):
        return _serving(base, request)
    rows = [Row(row, f"row {place}") for place, row in enumerate(request["rows"])]
    layers = {"layers": f"{base.shape.layers - max(1, base.shape.layers // 3)}-"} if request["upper"] else {}
    method = make_method({**request["method"], **layers})
    ready = prepare(base, task_for(), method, rows={"train": rows}, seed=0)
    examples, size = ready.splits["train"], request["batch"]
    ready.engine.encode(examples)
    optimizer = make_optimizer(method.groups(), TrainSpec(lr=request["lr"], weight_decay=0.0))
    batches = cycle([examples[begin : begin + size] for begin in range(0, len(examples), size)])

    def step() -> float:
        with method.training():
            total, count = ready.engine.loss(next(batches), method.learned())
        (total / count).backward()
        optimizer.step()
        optimizer.zero_grad()
        return total.item() / count

    tokens = sum(len(example.text) for example in examples) / len(examples)
    return step, {
        "parameters": sum(p.numel() for p in method.parameters()),
        "text_tokens": tokens,
        "device": base.device.type,
    }


def _serving(base: Base, request: dict[str, Any]) -> tuple[Step, dict[str, Any]]:
    """A step answers one batch in which row i stands behind prefix i mod the number of prefixes."""
    task = task_for()
    bound = task.bind(base.tokenizer, base.max_positions - 100, instruction=False)
    prompts = []
    for length in request["prefixes"]:
        method = make_method({"name": "prefix", "length": length, "text": INIT_TEXT})
        method.attach(base, bound, seed=length)
        prompts.append(compile_prompt(base, method, task))
    size = request["batch"]
    examples = [bound.example(row) for row in request["rows"]]
    batches = cycle([examples[begin : begin + size] for begin in range(0, len(examples), size)])

    def step() -> float:
        with torch.no_grad():
            some = next(batches)
            mine = [prompts[place % len(prompts)] for place in range(len(some))]
            rows = [prompt.row(example) for prompt, example in zip(mine, some, strict=True)]
            batch = run(base, rows)
            return base.logits(batch.last).mean().item()

    return step, {}


if __name__ == "__main__":
    serve(set_up)
