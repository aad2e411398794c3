"""What short runs of every method give: artifact's bytes, losses, answers. A change that is to change nothing leaves them.

python tests/golden_runs.py            compares with tests/golden/runs.json, to the bit
python tests/golden_runs.py --write    writes it anew: only where results are meant to change
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from helpers import tiny_rows, tiny_task
from models import tiny_base
from test_bidirectional import encoder, span_rows
from test_task_types import CHOICE, LETTERS, SPAN, WRITE, choice_rows, echo_rows
from test_task_types import splits as halves

from softprompt import registry
from softprompt.base import Base
from softprompt.data import Row
from softprompt.errors import SoftpromptError
from softprompt.runtime import Runtime
from softprompt.tasks import Task
from softprompt.training import train

FILE = Path(__file__).parent / "golden" / "runs.json"
FAMILIES = ("llama", "gemma3", "bert", "t5")
LORA = {"name": "lora", "r": 2, "alpha": 4}
PEFTS_CHOICE = ["q_proj", "v_proj", "query", "value", "q", "v"]
"""In these families; it was the default of `lora` when its runs were written."""
SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {**LORA, "target_modules": PEFTS_CHOICE},
    "peft": {"name": "peft:LN_TUNING"},
    "joint": {
        "name": "joint",
        "parts": [{"name": "soft", "length": 3}, {**LORA, "target_modules": PEFTS_CHOICE}],
    },
}
"""Of methods that have no settings of their own by name alone, or that would be large."""
MORE: list[tuple[str, str, dict[str, Any]]] = [
    ("llama", "choice", {"name": "soft", "length": 3}),
    ("llama", "choice", {"name": "infix", "length": 3}),
    ("llama", "letters", {"name": "prefix", "length": 3}),
    ("bert", "choice", {"name": "prefix", "length": 3}),
    ("llama", "generation", {"name": "infix", "length": 3}),
    ("gemma3", "generation", {"name": "soft", "length": 3}),
    ("t5", "generation", {"name": "prefix", "length": 3}),
    ("llama", "span", {"name": "prefix", "length": 3}),
    ("bert", "span", {"name": "prefix", "length": 3, "head": True}),
    ("encoder", "span", {"name": "full"}),
    ("encoder", "labels", {"name": "prefix", "length": 3}),
    ("encoder", "labels", {"name": "probe"}),
    ("llama", "labels", {"name": "prefix", "length": 3, "head": True}),
    ("llama", "labels", {**LORA, "activate": "cue", "target_modules": PEFTS_CHOICE}),
    ("llama", "labels", {"name": "prefix", "length": 3, "layers": "2-"}),
    ("llama", "labels", LORA),
    ("encoder", "labels", LORA),
    ("t5", "labels", {**LORA, "activate": "cue"}),
]


def cases() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Family, task and method: every registered method on the labels of each family, and what answers otherwise."""
    for family in FAMILIES:
        for name in registry.names("softprompt.methods"):
            length = {"length": 3} if name in ("soft", "prefix", "infix", "p_tuning") else {}
            yield family, "labels", SETTINGS.get(name, {"name": name, **length})
    yield from MORE


def name_of(family: str, task: str, method: dict[str, Any]) -> str:
    """One line that names a case."""
    return f"{family} {task} {json.dumps(method, sort_keys=True)}"


def _rows_of(task: str) -> tuple[Task, dict[str, list[Row]]]:
    if task == "labels":
        return tiny_task(), tiny_rows()
    spec, rows = {
        "choice": (CHOICE, choice_rows(36)),
        "letters": (LETTERS, choice_rows(36)),
        "generation": (WRITE, echo_rows(36)),
        "span": (SPAN, span_rows(36)),
    }[task]
    parts = halves(rows)
    return Task.load(spec), {"train": parts["train"], "dev": parts["dev"][:9], "test": parts["dev"][9:]}


def base_of(family: str) -> Base:
    """A tiny base of this family; `encoder` has no words."""
    return encoder() if family == "encoder" else tiny_base(family)


def run(family: str, task: str, method: dict[str, Any]) -> dict[str, Any]:
    """What three steps give; or, where the method does not go with the base, the message."""
    made, rows = _rows_of(task)
    base = base_of(family)
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = train(
                base, made, method, folder, train={"batch_size": 8, "max_steps": 3}, rows=rows, test=True, check=False
            )
        except SoftpromptError as error:
            return {"refused": str(error)}
        assert result.artifact is not None
        events = [json.loads(line) for line in (Path(folder) / "events.jsonl").read_text().splitlines()]
        runtime = Runtime(base)
        runtime.add("it", result.artifact)
        asked = rows["test"][:6]
        return {
            "sha256": _sha256(result.artifact / "adapter_model.safetensors"),
            "losses": [one["loss"] for one in events if one["event"] == "step"],
            "metrics": {name: [one.estimate.value, one.nll] for name, one in result.metrics.items()},
            "predictions": [one.as_dict() for one in runtime.predict([row.values for row in asked])],
        }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def machine() -> str:
    """What the last bits depend on."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return f"{cpu.partition(': ')[2] or platform.processor()}, torch {torch.__version__}"


def main() -> int:
    """Compare, or write."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    results = {}
    for case in cases():
        results[name_of(*case)] = run(*case)
        print(name_of(*case), results[name_of(*case)].get("refused", "ran"), flush=True)
    if "--write" in sys.argv:
        FILE.write_text(json.dumps({"machine": machine(), "runs": results}, indent=1, ensure_ascii=False) + "\n")
        return 0
    golden = json.loads(FILE.read_text())
    same = golden["machine"] == machine()
    wrong = [name for name, one in golden["runs"].items() if results.get(name) != one]
    for name in wrong:
        print(f"differs: {name}\n  was {golden['runs'][name]}\n  is  {results.get(name)}")
    print(f"{len(results) - len(wrong)} of {len(golden['runs'])} equal to the bit", "" if same else "(another machine)")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
