"""`softprompt bench speed`: a training step of ours against PEFT's, interleaved in one run, each side its own process."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from types import TracebackType
from typing import Any

from softprompt.benchmarks.cases import CASES, MIXED, Case, rows_for

from softprompt.errors import MissingExtraError, SoftpromptError
from softprompt.types import Progress, ignore_progress

LOSS_TOLERANCE = {"cpu": 5e-5, "cuda": 1e-3}  # "equal to four decimals"; a GPU sums in another order each time
MIXED_PREFIXES = (5, 10, 15, 20)
SECONDS_FOR_ONE_ANSWER = 1800


class Side:
    """A worker process that does one step per request."""

    def __init__(self, module: str, request: dict[str, Any]) -> None:
        self.module = module
        self.process = subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self.facts = self.ask(request)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request, wait for its answer.

        Raises:
            SoftpromptError: the process ended (its own output is above).
        """
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            raise SoftpromptError(f"{self.module} ended with exit code {self.process.wait()}; see its message above")
        return json.loads(line)

    def step(self) -> tuple[float, float]:
        """(seconds, loss) of one step."""
        answer = self.ask({"do": "step"})
        return answer["seconds"], answer["loss"]

    def peak(self) -> float:
        """Most memory held so far, GB: the GPU's where there is one, else resident memory."""
        found = self.ask({"do": "peak"})
        return found.get("peak_cuda_gb", found.get("peak_rss_gb", 0.0))

    def __enter__(self) -> Side:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()


def main(
    base: str, steps: int = 7, only: list[str] | None = None, progress: Progress = ignore_progress
) -> dict[str, Any]:
    """Run the cases.

    Args:
        base: bundled name or folder.
        steps: measured steps per side and case, after one that warms up (counted for the losses).
        only: names of cases.

    Returns:
        {"rows": [...], "machine": {...}, "versions": {...}}. A case whose losses differ where they must be equal has
        `losses_equal` False and no speeds.

    Raises:
        MissingExtraError: PEFT is not installed.
    """
    from softprompt.base import bundled

    try:
        versions = {name: version(name) for name in ("softprompt", "torch", "transformers", "peft")}
    except ModuleNotFoundError as error:
        raise MissingExtraError("bench speed compares with PEFT: pip install 'softprompt[peft]'") from error
    folder = str(bundled.get(base)) if base in bundled.BUNDLED else base
    rows = []
    for case in CASES:
        if only is None or case.name in only:
            rows.append(_compare(folder, case, steps, progress))
    if only is None or MIXED in only:
        rows.append(_mixed(folder, steps * 3, progress))
    import torch

    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    return {"rows": rows, "machine": machine, "versions": versions}


def _compare(base: str, case: Case, steps: int, progress: Progress) -> dict[str, Any]:
    """One case: both sides get the same rows; steps alternate; the first of each only warms up."""
    request = {"base": base, "rows": rows_for(case.tokens, case.batch * (steps + 1)), **case.as_dict()}
    progress(f"{case.name}, starting both sides", 0, steps + 1)
    other = "softprompt.benchmarks." + ("ours" if case.peer_method == "ours" else "peft_side")
    with Side("softprompt.benchmarks.ours", request) as ours, Side(other, {**request, "upper": False}) as peer:
        allowed = LOSS_TOLERANCE[peer.facts["device"]]
        pairs = []
        for done in range(steps + 1):
            pairs.append(([ours.step() for _ in range(case.turn)], peer.step()))
            progress(f"{case.name}, steps", done + 1, steps + 1)
            if case.same_loss and _off(pairs) > allowed:
                break  # speeds of two different computations mean nothing
        memory = (ours.peak(), peer.peak())
        tokens, trained = ours.facts["text_tokens"], (ours.facts["parameters"], peer.facts["parameters"])
    off = _off(pairs)
    equal = off <= allowed if case.same_loss else None
    mine = theirs = None
    if equal is not False:
        mine = statistics.median(seconds for a, _ in pairs[1:] for seconds, _ in a)
        theirs = statistics.median(b[0] for _, b in pairs[1:])
    return {
        "name": case.name,
        "method": case.method["name"],
        "prompt_length": case.method.get("length"),
        "batch": case.batch,
        "text_tokens": round(tokens, 1),
        "peer": case.peer,
        "our_parameters": trained[0],
        "peer_parameters": trained[1],
        "peer_seconds": theirs,
        "our_seconds": mine,
        "speedup": theirs / mine if mine and theirs else None,
        "peer_peak_gb": memory[1],
        "our_peak_gb": memory[0],
        "memory_ratio": memory[0] / memory[1],
        "losses_equal": equal,
        "largest_loss_difference": off if case.same_loss else None,
        "losses": [loss for a, _ in pairs for _, loss in a],
        "peer_losses": [b[1] for _, b in pairs],
        "steps": steps,
    }


def _off(pairs: list[tuple[list[tuple[float, float]], tuple[float, float]]]) -> float:
    """Largest difference of the two sides' losses, step by step."""
    return max(abs(ours[0][1] - peer[1]) for ours, peer in pairs)


def _mixed(base: str, steps: int, progress: Progress) -> dict[str, Any]:
    """Prefixes of four lengths in one batch against one prefix, padded to the same shape; both are ours."""
    batch = 32
    request = {"base": base, "rows": rows_for(30, batch * 4), "batch": batch}
    progress(f"{MIXED}, starting both sides", 0, steps + 1)
    module = "softprompt.benchmarks.ours"
    single_of = {**request, "prefixes": [max(MIXED_PREFIXES)]}
    with Side(module, {**request, "prefixes": list(MIXED_PREFIXES)}) as mixed, Side(module, single_of) as single:
        pairs = []
        for done in range(steps + 1):
            pairs.append((mixed.step()[0], single.step()[0]))
            progress(f"{MIXED}, steps", done + 1, steps + 1)
        memory = (mixed.peak(), single.peak())
    mine, theirs = (statistics.median(pair[side] for pair in pairs[1:]) for side in (0, 1))
    return {
        "name": MIXED,
        "method": "prefix",
        "prompt_length": list(MIXED_PREFIXES),
        "batch": batch,
        "text_tokens": 30,
        "peer": f"ours, one prefix, P={max(MIXED_PREFIXES)}",
        "peer_seconds": theirs,
        "our_seconds": mine,
        "speedup": theirs / mine,
        "throughput_ratio": theirs / mine,
        "memory_ratio": memory[0] / memory[1],
        "losses_equal": None,
        "steps": steps,
    }
