"""Our side of the speed benchmark: `python -m softprompt.benchmarks.speed.ours`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any, TypeVar

import torch

from softprompt.adapters.targets import choice_of_peft
from softprompt.answers import compiled
from softprompt.base import Base
from softprompt.benchmarks.speed.cases import INIT_TEXT, TEMPLATE
from softprompt.benchmarks.speed.flops import Peak, step_flops
from softprompt.benchmarks.speed.worker import Work, digest, serve
from softprompt.data import Row
from softprompt.engine import NOTHING, run
from softprompt.methods import make_method
from softprompt.prepared import bind
from softprompt.tasks import Task
from softprompt.training import TrainSpec, prepare
from softprompt.training.optimizers import make_optimizer

T = TypeVar("T")


def task_for(instruction: str = "") -> Task:
    """The task that both sides train on."""
    words = {"positive": "positive", "negative": "negative"}
    return Task.load({"name": "speed", "template": {**TEMPLATE, "instruction": instruction}, "verbalizer": words})


def set_up(request: dict[str, Any]) -> Work:
    """Training steps of one case, evaluation steps of one that learns nothing, encoding, or serving of prefixes."""
    base = Base.load(request["base"])
    if request.get("prefixes"):
        return _serving(base, request)
    rows = [Row(row, f"row {place}") for place, row in enumerate(request["rows"])]
    layers = {"layers": f"{base.shape.layers - max(1, base.shape.layers // 3)}-"} if request.get("upper") else {}
    modules = {"target_modules": choice_of_peft(base)} if request["method"]["name"] == "lora" else {}  # as the peer
    method = make_method({**modules, **request["method"], **layers})
    ready = prepare(base, task_for(), method, rows={"train": rows}, seed=0)
    examples, engine = ready.splits["train"], ready.engine
    if request.get("chunks"):
        chunks = _cut(examples, request["chunks"])
        left = iter(chunks)

        def encode() -> float:
            engine.encode(next(left))
            return 0.0

        tokens = [sum(len(row.text) for row in part) / len(part) for part in chunks]
        return Work(encode, {"tokens": tokens})
    parts = _cut(examples, [request["batch"]] * (len(examples) // request["batch"]))
    batches = cycle(parts)
    parameters = method.parameters()
    if parameters:
        engine.encode(examples)
        optimizer = make_optimizer(method.groups(), TrainSpec(lr=request["lr"], weight_decay=0.0))

    def step() -> float:
        with method.training():
            total, count = engine.loss(next(batches), method.learned())
        (total / count).backward()
        optimizer.step()
        optimizer.zero_grad()
        return total.item() / count

    @torch.no_grad()
    def look() -> float:
        if request["peer_method"] == "features":
            return digest(engine.features(next(batches)))
        total, count = engine.loss(next(batches), NOTHING)
        return total.item() / count

    learned = method.learned()
    flops = [step_flops(engine, part, learned, training=bool(parameters)).as_dict() for part in parts]
    facts = {
        "parameters": sum(p.numel() for p in parameters),
        "text_tokens": sum(len(example.text) for example in examples) / len(examples),
        "device": base.device.type,
        "threads": torch.get_num_threads(),
        "flops": flops,
    }
    peak = Peak(base, sum(engine.size(example) for example in parts[0]))
    return Work(step if parameters else look, facts, peak.measure)


def _cut(whole: Sequence[T], sizes: Sequence[int]) -> list[Sequence[T]]:
    """Consecutive parts of these sizes."""
    found, begin = [], 0
    for size in sizes:
        found.append(whole[begin : begin + size])
        begin += size
    return found


def _serving(base: Base, request: dict[str, Any]) -> Work:
    """A step answers one batch in which row i stands behind prefix i mod the number of prefixes."""
    task = task_for()
    prompts = []
    for length in request["prefixes"]:
        method = make_method({"name": "prefix", "length": length, "text": INIT_TEXT})
        prompts.append(compiled(bind(base, task, method, seed=length)))
    size = request["batch"]
    examples = [prompts[0].form.encode(row) for row in request["rows"]]
    batches = cycle([examples[begin : begin + size] for begin in range(0, len(examples), size)])

    def step() -> float:
        with torch.no_grad():
            some = next(batches)
            mine = [prompts[place % len(prompts)] for place in range(len(some))]
            rows = [prompt.row(example) for prompt, example in zip(mine, some, strict=True)]
            batch = run(base, rows)
            return base.logits(batch.last).mean().item()

    return Work(step, {})


if __name__ == "__main__":
    serve(set_up)
