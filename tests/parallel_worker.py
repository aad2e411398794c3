"""What one of several processes does in `test_parallel.py`: train every case, and leave what it holds in `rankN.json`."""

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
}
RATES = {"soft": 0.02, "infix": 0.05, "prefix": 0.02, "upper-prefix": 0.02, "full": 1e-4, "joint": 0.01}
ROWS = {"train": 13, "dev": 7, "test": 5}
BATCH = 4  # of 13 rows: the last batch has one, so one of two processes has none


def settings(name: str) -> dict:
    """13 rows in batches of 4, micro-batches of 2, a look at dev every three steps."""
    return {
        "epochs": 3,
        "batch_size": BATCH,
        "micro_batch": 2,
        "lr": RATES.get(name, 2e-3),
        "eval_every": 3,
        "patience": 50,
    }


def run(name: str, folder: Path):
    """Train one case."""
    from softprompt.training import train

    return train(
        tiny_base(), tiny_task(), CASES[name], folder, train=settings(name), rows=tiny_rows(**ROWS), test=True, seed=3
    )


def main(folder: Path) -> None:
    """All cases."""
    from softprompt.parallel import processes

    found = {}
    for name in CASES:
        result = run(name, folder / name)
        method, engine = result.prepared.method, result.prepared.engine
        found[name] = {
            "sums": [float(value.double().sum()) for value in method.export().values()],
            "kept": len(engine.cache),
            "metrics": {split: [item.estimate.value, item.nll] for split, item in result.metrics.items()},
            "best": result.best_step,
        }
    (folder / f"rank{processes().rank}.json").write_text(json.dumps({"world": processes().world, "found": found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
