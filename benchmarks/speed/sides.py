"""The two sides of a case, each in a process of its own, and the steps that they take in turns."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple

from softprompt.benchmarks.speed.cases import Case, rows_for
from softprompt.errors import SoftpromptError
from softprompt.types import Progress

LOSS_TOLERANCE = {"cpu": 5e-5, "cuda": 1e-3}  # "equal to four decimals"; a GPU sums in another order each time
OURS, PEERS = "softprompt.benchmarks.speed.ours", "softprompt.benchmarks.speed.peft_side"


class Taken(NamedTuple):
    """What one step took: seconds on the clock, its loss, seconds of processor time (of all threads together)."""

    seconds: float
    loss: float
    cpu_seconds: float


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
            SoftpromptError: the process refused, in its words, or ended (its own output is above).
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
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SoftpromptError(answer["error"])
        return answer

    def step(self) -> Taken:
        """One step."""
        answer = self.ask({"do": "step"})
        return Taken(answer["seconds"], answer["loss"], answer["cpu_seconds"])

    def rates(self) -> tuple[float, float]:
        """FLOPs per second of the fastest matrix product there, measured now (see `flops.Peak`)."""
        clock, cpu = self.ask({"do": "sgemm"})["rates"]
        return clock, cpu

    def peak(self) -> float:
        """Most memory held so far, GB: the GPU's where there is one, else resident memory."""
        return _gb(self.ask({"do": "peak"}))

    @property
    def loaded(self) -> float:
        """Most memory held before the first step, GB."""
        return _gb(self.facts["loaded"])

    def __enter__(self) -> Side:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()


def _gb(found: dict[str, float]) -> float:
    return found.get("peak_cuda_gb", found.get("peak_rss_gb", 0.0))


@dataclass
class Steps:
    """What was measured in turns: per turn the rates of sgemm, our steps, the peer's step; the first turn only warms up."""

    rates: list[tuple[float, float]] = field(default_factory=list)
    ours: list[list[Taken]] = field(default_factory=list)
    peer: list[Taken] = field(default_factory=list)

    @property
    def off(self) -> float:
        """Largest difference of the two sides' losses, step by step."""
        ours = [step for turn in self.ours for step in turn]  # both sides' n-th step is on the same rows
        return max((abs(mine.loss - theirs.loss) for mine, theirs in zip(ours, self.peer, strict=False)), default=0)

    @property
    def our_seconds(self) -> float:
        """Median of our steps."""
        return statistics.median(step.seconds for turn in self.ours[1:] for step in turn)

    @property
    def peer_seconds(self) -> float | None:
        """Median of the peer's steps."""
        return statistics.median(step.seconds for step in self.peer[1:]) if self.peer else None

    def utilisation(self, flops: list[dict[str, float]], threads: int = 0) -> float:
        """Median over turns of model FLOPs / (seconds · peak), the peak measured right before the turn's steps.

        Args:
            flops: of our steps, in order, from the first on again at the end.
            threads: take the processor time that each of so many threads was given instead of the clock's, for step and peak:
                where others use the machine, a step of seconds loses time to them that the best of many short products does
                not. (What threads wait for each other is not in it.)
        """
        found, done = [], 0
        for place, turn in enumerate(self.ours):
            needed = sum(flops[(done + step) % len(flops)]["total"] for step in range(len(turn)))
            done += len(turn)
            if place:
                taken = sum(step.cpu_seconds / threads if threads else step.seconds for step in turn)
                found.append(needed / (taken * self.rates[place][1 if threads else 0]))
        return statistics.median(found)


def compare(base: str, case: Case, steps: int, progress: Progress, peer: bool = True) -> dict[str, Any]:
    """One case: both sides get the same rows; steps alternate; the first of each only warms up.

    Args:
        peer: without it only ours runs.

    Returns:
        a row of the table (see `main`).
    """
    request = {"base": base, "rows": rows_for(case.tokens, case.batch * (steps + 1)), **case.as_dict()}
    progress(f"{case.name}, starting", 0, steps + 1)
    other = OURS if case.peer_method == "ours" else PEERS
    taken, equal = Steps(), None
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(Side(OURS, request))
        theirs = stack.enter_context(Side(other, {**request, "upper": False})) if peer else None
        allowed = LOSS_TOLERANCE[ours.facts["device"]]
        for done in range(steps + 1):
            taken.rates.append(ours.rates())
            taken.ours.append([ours.step() for _ in range(case.turn)])
            if theirs is not None:
                taken.peer.append(theirs.step())
                if case.same_loss and not (equal := taken.off <= allowed):
                    break  # speeds of two different computations mean nothing
            progress(f"{case.name}, steps", done + 1, steps + 1)
        facts, memory = ours.facts, [ours.peak(), theirs.peak() if theirs else None]
        loaded = [ours.loaded, theirs.loaded if theirs else None]
    told, on_cpu = equal is not False, facts["device"] == "cpu"
    mine, other_seconds = (taken.our_seconds, taken.peer_seconds) if told else (None, None)
    flops = facts["flops"]
    return {
        "name": case.name,
        "method": case.method["name"],
        "prompt_length": case.method.get("length"),
        "batch": case.batch,
        "tokens": case.tokens,
        "text_tokens": round(facts["text_tokens"], 1),
        "peer": case.peer,
        "our_parameters": facts["parameters"],
        "peer_parameters": theirs.facts["parameters"] if theirs else None,
        "peer_seconds": other_seconds,
        "our_seconds": mine,
        "speedup": other_seconds / mine if mine and other_seconds else None,
        "peer_peak_gb": memory[1],
        "our_peak_gb": memory[0],
        "peer_loaded_gb": loaded[1],
        "our_loaded_gb": loaded[0],
        "memory_ratio": memory[0] / memory[1] if memory[0] and memory[1] else None,
        "model_gflops": statistics.mean(of["total"] for of in flops) / 1e9,
        "sgemm_gflops": statistics.median(clock for clock, _ in taken.rates) / 1e9,
        "utilisation": taken.utilisation(flops) if told else None,
        "utilisation_of_cpu_time": taken.utilisation(flops, facts["threads"]) if told and on_cpu else None,
        "our_cpu_seconds": statistics.median(s.cpu_seconds for turn in taken.ours[1:] for s in turn) if told else None,
        "peer_cpu_seconds": statistics.median(s.cpu_seconds for s in taken.peer[1:]) if told and theirs else None,
        "threads": facts["threads"],
        "losses_equal": equal,
        "largest_loss_difference": taken.off if equal is not None else None,
        "losses": [step.loss for turn in taken.ours for step in turn],
        "peer_losses": [step.loss for step in taken.peer],
        "steps": steps,
    }
