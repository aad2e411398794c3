"""The two sides of a case, each in a process of its own, and the steps that they take in turns."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from types import TracebackType
from typing import Any

from softprompt.benchmarks.speed.cases import Case, rows_for
from softprompt.benchmarks.speed.turns import Steps, Taken, Turns, interval
from softprompt.errors import SoftpromptError
from softprompt.types import Progress

LOSS_TOLERANCE = {"cpu": 5e-5, "cuda": 1e-3}  # "equal to four decimals"; a GPU sums in another order each time
OURS, PEERS = "softprompt.benchmarks.speed.ours", "softprompt.benchmarks.speed.peft_side"


class Side:
    """A worker process that does one step per request. It ends with the `with` that holds it, and soon after this process.

    Signals of the terminal do not reach it: this process hears them, and ends it.
    """

    def __init__(self, module: str) -> None:
        self.module = module
        self.facts: dict[str, Any] = {}
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )

    def set_up(self, request: dict[str, Any]) -> None:
        """Send the first request, and keep what is told in answer as `facts`; see `ask`."""
        self.facts = self.ask(request)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request, wait for its answer.

        Raises:
            SoftpromptError: the process refused, in its words, or ended (its own output is above).
        """
        assert self.process.stdin and self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
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
        return _gigabytes(self.ask({"do": "peak"}))

    @property
    def loaded(self) -> float:
        """Most memory held before the first step, GB."""
        return _gigabytes(self.facts["loaded"])

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # a request that nobody read
                if pipe is not None:
                    pipe.close()


def _gigabytes(peaks: dict[str, float]) -> float:
    return peaks.get("peak_cuda_gb", peaks.get("peak_rss_gb", 0.0))


def compare(base: str, case: Case, turns: Turns, progress: Progress, peer: bool = True) -> dict[str, Any]:
    """One case: both sides get the same rows; steps alternate; the first of each only warms up.

    Args:
        peer: without it only ours runs.

    Returns:
        a row of the table (see `main`).
    """
    rows = rows_for(case.tokens, case.batch * (turns.least + 1))  # further turns take them again
    request = {"base": base, "rows": rows, **case.as_dict()}
    progress(f"{case.name}, starting", 0, turns.most + 1)
    other = OURS if case.peer_method == "ours" else PEERS
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(Side(OURS))
        theirs = stack.enter_context(Side(other)) if peer else None  # its imports run while ours sets up
        ours.set_up(request)
        if theirs is not None:
            theirs.set_up({**request, "upper": False})
        taken = _take_turns(case, ours, theirs, turns, progress)
        memory = [ours.peak(), theirs.peak() if theirs else None]
        return _row(case, taken, ours, theirs, memory)


def _take_turns(case: Case, ours: Side, theirs: Side | None, turns: Turns, progress: Progress) -> Steps:
    """Steps until they are enough, or until losses differ: speeds of two different computations mean nothing."""
    taken = Steps()
    while not taken.enough(turns):
        taken.rates.append(ours.rates())
        taken.ours.append([ours.step() for _ in range(case.turn)])
        if theirs is not None:
            taken.peer.append(theirs.step())
            if _equal(case, taken, ours) is False:
                break
        progress(f"{case.name}, steps", len(taken.ours), turns.most + 1)
    progress(f"{case.name}, done", len(taken.ours), len(taken.ours))
    return taken


def _equal(case: Case, taken: Steps, ours: Side) -> bool | None:
    """Whether losses agree; None where they need not."""
    return taken.off <= LOSS_TOLERANCE[ours.facts["device"]] if case.same_loss and taken.peer else None


def _row(case: Case, taken: Steps, ours: Side, theirs: Side | None, memory: list[float | None]) -> dict[str, Any]:
    facts, equal = ours.facts, _equal(case, taken, ours)
    told, on_cpu, flops = equal is not False, facts["device"] == "cpu", facts["flops"]
    mine, other_seconds = (taken.our_seconds, taken.peer_seconds) if told else (None, None)
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
        "speedup_interval": interval(taken.speedups) if told else None,
        "peer_peak_gb": memory[1],
        "our_peak_gb": memory[0],
        "peer_loaded_gb": theirs.loaded if theirs else None,
        "our_loaded_gb": ours.loaded,
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
        "steps": len(taken.ours) - 1,
    }
