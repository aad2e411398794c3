"""What one of several processes does in `test_parallel.py`: train every case, and leave what it holds in `rankN.json`.

parallel_worker.py FOLDER [CASE …]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from helpers import tiny_rows, tiny_task
from models import tiny_base

CASES = {
    "soft": {"name": "soft", "length": 4},
    "prefix": {"name": "prefix", "length": 4},
    "upper-prefix": {"name": "prefix", "length": 4, "layers": "1-"},
    "infix": {"name": "infix", "length": 3},
    "lora": {"name": "lora", "r": 4},
    "cue-lora": {"name": "lora", "r": 4, "activate": "cue"},
    "full": {"name": "full"},
    "joint": {"name": "joint", "parts": ["soft", {"name": "lora", "r": 2}]},
    "probe": {"name": "probe"},
    "t5-infix": {"name": "infix", "length": 3},
    "t5-soft": {"name": "soft", "length": 4},
}
SHARDED = {"tied": {"name": "full"}, "again": {"name": "full"}, "full": {"name": "full"}}  # by FSDP
BASES = {"tied": "gemma3", "t5-infix": "t5", "t5-soft": "t5"}  # the head of the first is the embeddings
RATES = {
    "t5-infix": 0.005,
    "t5-soft": 0.02,
    "soft": 0.02,
    "infix": 0.05,
    "prefix": 0.02,
    "upper-prefix": 0.02,
    "joint": 0.01,
} | dict.fromkeys(SHARDED, 1e-4)
ROWS = {"train": 13, "dev": 7, "test": 5}
BATCH = 4  # of 13 rows: the last batch has one, so one of two processes has none
EPOCHS = 2
STEPS = 8  # of both


def settings(name: str) -> dict:
    """13 rows in batches of 4, micro-batches of 2 (or 1, so that there are several), a dev evaluation every three steps."""
    return {
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "micro_batch": 1 if name == "again" else 2,
        "gradient_checkpointing": name == "again",
        "lr": RATES.get(name, 2e-3),
        "eval_every": 3,
        "patience": 50,
    }


def run(name: str, folder: Path, **how):
    """Train one case."""
    from softprompt.training import train

    return train(
        tiny_base(BASES.get(name, "llama")),
        tiny_task(scoring={"over": "vocabulary"}),
        (CASES | SHARDED)[name],
        folder,
        train=settings(name),
        rows=tiny_rows(**ROWS),
        test=True,
        seed=3,
        **how,
    )


def weigh(held: dict[str, int]) -> None:
    """From now on count, before each optimizer step, the numbers that this process holds in shards."""
    from softprompt.training import loop

    made, check, optimizers = loop.make_optimizer, loop.refuse_not_finite, []

    def make(*args):
        optimizers.append(made(*args))
        return optimizers[-1]

    def count(*args):
        parameters = [p for group in optimizers[-1].param_groups for p in group["params"]]
        moments = [value for state in optimizers[-1].state.values() for value in state.values() if value.dim()]
        for what, tensors in (
            ("weights", parameters),
            ("gradients", [p.grad for p in parameters]),
            ("moments", moments),
        ):
            held[what] = sum(one.to_local().numel() for one in tensors)
        check(*args)

    loop.make_optimizer, loop.refuse_not_finite = make, count


def main(folder: Path, names: list[str]) -> None:
    """All these cases."""
    from softprompt.parallel import processes

    found, held = {}, {}
    if processes().shards:
        weigh(held)
    for name in names:
        heard: list[dict] = []
        result = run(name, folder / name, on_event=heard.append)
        method, engine = result.prepared.method, result.prepared.engine
        found[name] = {
            "sums": [float(value.double().sum()) for value in method.export().values()],
            "kept": len(engine.cache),
            "metrics": {split: [item.estimate.value, item.nll] for split, item in result.metrics.items()},
            "best": result.best_step,
            "parameters": result.parameters,
            "held": dict(held),
            "heard": heard,
        }
    (folder / f"rank{processes().rank}.json").write_text(json.dumps({"world": processes().world, "found": found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(CASES))
