"""Saves and runs that are killed: `python tests/crashing.py lines|calls|run|moments [COUNT]` tells how many kills there were.

- `lines` kills a save after each line of our code that has changed something on the disk.
- `calls` kills it at each of its system calls, from the first one on that changes a file.
- `run` kills a short training at each call that changes a file. Both need strace.
- `moments` kills so many trainings at random times.

Each child is forked from this process, which has everything loaded. A state is right if it is the old or the new one,
whole. The same work done again must give what it gives undisturbed, and leave no other file.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from helpers import tiny_rows, tiny_task
from models import tiny_base

from softprompt import artifact as artifacts
from softprompt import leftovers, storage
from softprompt.artifact import ensemble, store
from softprompt.ensemble import save_ensemble
from softprompt.training import checkpoints, train
from softprompt.training.state import State

WRITING = {module.__file__ for module in (storage, leftovers, store, ensemble, checkpoints)}
CHANGING = {
    *("write", "pwrite64", "writev", "ftruncate", "fsync", "chmod", "mkdir", "rmdir"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat"),
}
SETTINGS = {"max_steps": 6, "batch_size": 4, "lr": 0.02, "eval_every": 2}


@dataclass(frozen=True)
class Work:
    """Something that is killed.

    Attributes:
        before: makes the old state in an empty folder.
        act: makes the new one.
        look: what a folder holds, to be compared; raises where that is not whole.
    """

    before: Callable[[Path], Any]
    act: Callable[[Path], Any]
    look: Callable[[Path], Any]


def trained(folder: Path, name: str = "soft") -> Any:
    """A short run that keeps a checkpoint of every step."""
    checkpoints.SECONDS, checkpoints.SHARE = 0.0, 1e9
    method = {"name": name, "length": 2}
    return train(BASE, tiny_task(), method, folder, train=SETTINGS, rows=tiny_rows(8, 4, 4), check=False)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def names(folder: Path) -> list[str]:
    """All that lies below a folder, hidden files and empty folders too."""
    return sorted(str(item.relative_to(folder)) for item in folder.rglob("*"))


def left_behind(folder: Path) -> list[str]:
    """What no finished work leaves."""
    return [name for name in names(folder) if any(part.startswith(".") for part in Path(name).parts)]


def _value(number: float) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        held = artifacts.load(MADE / "soft")
        tensors = {key: torch.full_like(value, number) for key, value in held.tensors.items()}
        artifacts.save(folder / "a", held.manifest, tensors, "card")

    return write


def _artifact(folder: Path) -> Any:
    return artifacts.load(folder / "a").digest if (folder / "a").exists() else None


def _moved(folder: Path) -> Any:
    """Where the kernel cannot exchange names, the earlier folder may lie beside, under the name that the next save knows."""
    away = list(folder.glob(".a.*.old"))
    return artifacts.load(folder / "a" if (folder / "a").exists() else away[0]).digest


def _weights(first: float) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        save_ensemble(folder / "e", [(MADE / "soft", first), (MADE / "infix", 1 - first)])

    return write


def _ensemble(folder: Path) -> Any:
    return artifacts.load_ensemble(folder / "e").digest if (folder / "e").exists() else None


def _step(*steps: int) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        kept = checkpoints.FolderStore(folder, "run", checkpoints.read_checkpoints(folder, "run")[0])
        for step in steps:
            kept.save(State(step=step, parameters=[torch.full((3, 5), float(step))]))

    return write


def _checkpoint(folder: Path) -> Any:
    told: list[str] = []
    state, damaged = checkpoints.read_checkpoints(folder, "run", told.append)
    assert not told and not damaged, told
    assert state is None or state.parameters[0].eq(state.step).all()
    return state and state.step


def _json(number: int) -> Callable[[Path], Any]:
    return lambda folder: storage.write_json(folder / "result.json", {"n": [number] * 2000})


def _result(folder: Path) -> Any:
    file = folder / "result.json"
    return json.loads(file.read_bytes())["n"][0] if file.exists() else None


def _without_exchange(act: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        kept, storage._exchange = storage._exchange, lambda *a: False
        try:
            act(folder)
        finally:
            storage._exchange = kept

    return write


def nothing(folder: Path) -> None:
    """There was nothing before."""


WORK = {
    "a new artifact": Work(nothing, _value(2), _artifact),
    "an artifact replaced": Work(_value(1), _value(2), _artifact),
    "an artifact replaced without the kernel's exchange": Work(_value(1), _without_exchange(_value(2)), _moved),
    "a new ensemble": Work(nothing, _weights(0.5), _ensemble),
    "an ensemble replaced": Work(_weights(0.25), _weights(0.5), _ensemble),
    "the first checkpoint": Work(nothing, _step(1), _checkpoint),
    "the third checkpoint": Work(_step(1, 2), _step(3), _checkpoint),
    "result.json replaced": Work(_json(1), _json(2), _result),
}


def fork(act: Callable[[], Any]) -> int:
    """A child that does this, and ends with 0 if it could."""
    if child := os.fork():
        return child
    code = 1
    try:
        act()
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def ended(child: int) -> bool:
    """Whether a child ended by itself, not by a kill.

    Raises:
        AssertionError: it failed.
    """
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), f"exit code {code}"
    return code == 0


def lines_of(act: Callable[[], Any], folder: Path) -> list[int]:
    """Do it; the numbers (from 1) of the lines of the code that writes before which something in the folder had changed."""
    found, number, last = [], 0, None

    def on_line(frame: Any, event: str, _: Any) -> Any:
        nonlocal number, last
        if frame.f_code.co_filename not in WRITING:
            return None
        if event == "line":
            number += 1
            now = [(str(item), (held := item.lstat()).st_ino, held.st_mode, held.st_size) for item in folder.rglob("*")]
            if now != last:
                found.append(number)
            last = now
        return on_line

    sys.settrace(on_line)
    act()
    sys.settrace(None)
    return found


def at_line(act: Callable[[], Any], number: int) -> bool:
    """Do it, killed before the given line (from 1) of the code that writes; whether it ended before."""

    def on_its_way() -> None:
        left = number

        def on_line(frame: Any, event: str, _: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in WRITING:
                return None
            left -= event == "line"
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return on_line

        sys.settrace(on_line)
        act()

    return ended(fork(on_its_way))


def calls_of(act: Callable[[], Any], only_changes: bool = False) -> list[tuple[str, int]]:
    """Do it; its system calls from the first one on that changes a file: name, and number among those of that name."""
    counts: Counter[str] = Counter()
    found: list[tuple[str, int]] = []
    with tempfile.NamedTemporaryFile() as log:
        traced(act, "-o", log.name)
        for line in log.read().decode(errors="replace").splitlines():
            if (call := re.match(r"\d+ +(\w+)\(", line)) is None:
                continue
            counts[call[1]] += 1
            if call[1] in CHANGING or (found and not only_changes):
                found.append((call[1], counts[call[1]]))
    return found


def at_call(act: Callable[[], Any], place: tuple[str, int]) -> bool:
    """Do it, killed as it enters this system call; whether it ended before."""
    call, number = place
    return traced(act, "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}")


def traced(act: Callable[[], Any], *options: str) -> bool:
    """Do it under strace with these options; whether it ended before a kill."""

    def stopped() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        act()

    child = fork(stopped)
    os.waitpid(child, os.WUNTRACED)
    command = ["strace", "-f", *options, "-p", str(child)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        first = tracer.stderr.readline()
        assert "attached" in first, first
        os.kill(child, signal.SIGCONT)
        done = ended(child)
    return done


def killed_everywhere(work: Work, how: str) -> int:
    """Kill it at each place; how many kills there were.

    Args:
        how: `lines`, `calls` or `changes`, which are the calls that change a file.

    Raises:
        AssertionError: with what the folder held after one of them.
    """
    with tempfile.TemporaryDirectory() as scratch:
        old, new, it = (Path(scratch) / name for name in ("old", "new", "it"))
        for folder in (old, new):
            folder.mkdir()
            work.before(folder)

        def act() -> None:
            work.act(it)

        shutil.copytree(old, it)
        work.act(new)
        right = work.look(old), work.look(new)
        assert right[0] != right[1]
        places: Sequence[Any] = lines_of(act, it) if how == "lines" else calls_of(act, how == "changes")
        kills = 0
        for place in places:
            shutil.rmtree(it)
            shutil.copytree(old, it)
            done = at_line(act, place) if how == "lines" else at_call(act, place)
            assert work.look(it) in right, f"killed at {place}: {names(it)}"
            if not done:
                kills += 1
                work.act(it)
            assert work.look(it) == right[1] and not left_behind(it), f"after a kill at {place}: {names(it)}"
    return kills


def _run(folder: Path) -> Any:
    """The artifact that a run has left, and each of its steps; `result.json` and the log hold seconds."""
    if not (folder / "artifact").exists():
        return None
    if not (folder / "run.yaml").exists():
        artifacts.load(folder / "artifact")
        return None
    events = [json.loads(line) for line in (folder / "events.jsonl").read_bytes().splitlines()]
    steps = [[event["step"], event["loss"]] for event in events if event["event"] == "step"]
    held = {name: data for name, data in contents(folder).items() if name.startswith(("artifact", "run.yaml"))}
    return held, json.loads((folder / "result.json").read_bytes())["metrics"], steps


def killed_at_moments(count: int, seed: int = 0) -> tuple[int, int]:
    """Kill trainings at random times, each of which goes on from what the kill left; numbers of kills and of whole runs.

    Raises:
        AssertionError: a run ended in other bytes than one that nobody killed.
    """
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        began = time.monotonic()
        trained(whole, "infix")
        longest, right = time.monotonic() - began, _run(whole)
        kills = runs = 0
        while kills < count:
            folder, done = Path(scratch) / str(runs), False
            while not done:
                child = fork(lambda folder=folder: trained(folder, "infix"))
                if kills < count:
                    time.sleep(rng.uniform(0, 1.5 * longest))
                    os.kill(child, signal.SIGKILL)
                done = ended(child)
                kills += not done
                assert _run(folder) in (None, right), names(folder)
            assert _run(folder) == right and names(folder) == names(whole), names(folder)
            shutil.rmtree(folder)
            runs += 1
    return kills, runs


def begin(words: list[str]) -> dict[str, int]:
    """Do one of the four, as the command line asks."""
    global MADE
    torch.set_num_threads(1)  # nothing but this thread may live when we fork
    with tempfile.TemporaryDirectory() as made:
        MADE = Path(made)
        for kind in ("soft", "infix"):
            shutil.copytree(trained(MADE / f"{kind}.run", kind).artifact, MADE / kind)
        if words[0] == "moments":
            kills, runs = killed_at_moments(int(words[1]))
            return {"kills": kills, "whole runs": runs}
        if words[0] == "run":
            return {"a short run": killed_everywhere(Work(nothing, trained, _run), "changes")}
        found = {}
        for name, work in ((name, work) for name, work in WORK.items() if not words[1:] or name in words[1:]):
            found[name] = killed_everywhere(work, words[0])
            print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
        return found


BASE, MADE = tiny_base(), Path()

if __name__ == "__main__":
    print(json.dumps(begin(sys.argv[1:])))
