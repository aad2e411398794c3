"""Kill -9 at any moment: what was saved is the old or the new state, whole, and the same command goes on from it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import tiny_rows, tiny_task
from models import tiny_base

from softprompt import holding, leftovers
from softprompt.errors import SoftpromptError
from softprompt.holding import OWNER, held
from softprompt.leftovers import making_folder
from softprompt.storage import atomic_file, atomic_folder
from softprompt.training import checkpoints, train
from softprompt.training.state import State

needs_forks = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork and the kernel's exchange")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


def crash(*words: str) -> dict[str, int]:
    """What `crashing.py` told of these words."""
    script = f"import crashing; print(crashing.json.dumps(crashing.begin({list(words)!r})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


SOME = ("an artifact replaced", "an ensemble replaced", "the third checkpoint", "result.json replaced")


@needs_forks
@pytest.mark.parametrize("works", [SOME, pytest.param((), marks=pytest.mark.full)], ids=["some", "all"])
def test_a_save_that_is_killed_after_any_change_of_the_disk(forks, works):
    kills = crash("lines", *works)
    assert len(kills) == (len(works) or 8) and min(kills.values()) >= 5


@needs_forks
@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.full)])
def test_trainings_killed_at_random_moments_end_in_the_same_bytes(forks, count):
    assert crash("moments", str(count))["kills"] == count


@needs_forks
@needs_strace
@pytest.mark.full
@pytest.mark.parametrize("what", ["calls", "run"])
def test_kill_9_at_every_system_call(forks, what):
    assert min(crash(what).values()) > 20


# ---------------------------------------------------------------- damaged checkpoints


def damages(data: bytes, cuts: int, flips: int) -> list[bytes]:
    """A file cut short at evenly spread places, and with one bit turned at random ones."""
    rng = random.Random(0)
    found = [data[: len(data) * part // cuts] for part in range(cuts)]
    for _ in range(flips):
        turned = bytearray(data)
        turned[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        found.append(bytes(turned))
    return found


def test_of_two_checkpoints_the_older_one_is_taken_with_one_warning(tmp_path):
    store = checkpoints.FolderStore(tmp_path, "run")
    for step in (1, 2):
        store.save(State(step=step, parameters=[torch.full((20, 30), float(step))]))
    newest = (tmp_path / checkpoints.NEWEST).read_bytes()
    assert b"pickle" not in newest and newest[8:9] == b"{"
    for damaged in damages(newest, 16, 64):
        (tmp_path / checkpoints.NEWEST).write_bytes(damaged)
        told: list[str] = []
        state, is_damaged = checkpoints.read_checkpoints(tmp_path, "run", told.append)
        assert is_damaged and state is not None and state.step == 1 and state.parameters[0].eq(1).all()
        assert len(told) == 1 and told[0].endswith("going on from step 1")


@pytest.mark.parametrize(("cuts", "flips"), [(2, 2), pytest.param(16, 64, marks=pytest.mark.full)])
def test_a_run_with_a_damaged_checkpoint_ends_in_the_same_bytes(tmp_path, monkeypatch, cuts, flips):
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    base = tiny_base()

    class Cut(Exception):
        pass

    def run(folder: Path, last: int = 4, notice=lambda text: None) -> dict[str, bytes]:
        def progress(what, done, total):
            if what.startswith("training") and done > last:
                raise Cut

        how = {"max_steps": 4, "batch_size": 4, "lr": 0.02, "eval_every": 2}
        rows, more = tiny_rows(8, 4, 4), {"check": False, "progress": progress, "notice": notice}
        done = train(base, tiny_task(), {"name": "infix", "length": 2}, folder, train=how, rows=rows, **more)
        return {file.name: file.read_bytes() for file in done.artifact.iterdir()}

    want, cut = run(tmp_path / "whole"), tmp_path / "cut"
    with contextlib.suppress(Cut):
        run(cut, 2)
    assert not (cut / "artifact").exists()
    for damaged in damages((cut / checkpoints.NEWEST).read_bytes(), cuts, flips):
        folder, told = tmp_path / "it", []
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(cut, folder)
        (folder / checkpoints.NEWEST).write_bytes(damaged)
        assert run(folder, notice=told.append) == want
        assert len(told) == 1 and "is damaged" in told[0] and "going on from step" in told[0]


# ---------------------------------------------------------------- what is left, and who holds a folder


def test_what_a_killed_save_left_goes_with_the_next_one(tmp_path):
    ours = leftovers._machine()
    for name in (f".a.{ours}abcd.tmp", f".a.{ours}abcd.old", f".b.{ours}abcd.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with making_folder(tmp_path / "b") as living, atomic_folder(tmp_path / "a") as new:
        assert (tmp_path / "a" / "file").read_text() == f".a.{ours}abcd.old"  # what was moved away is back
        (new / "file").write_text("new")
        with making_folder(tmp_path / "b"):
            assert living.is_dir()  # somebody is at work there
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a" / "file").read_text() == "new"


def test_what_another_machine_is_making_stays(tmp_path):
    """Its lock on a folder of a shared disk is often not seen here."""
    other = tmp_path / f".a.{int(leftovers._machine(), 16) ^ 1:04x}abcd.tmp"
    other.mkdir()
    with atomic_folder(tmp_path / "a"):
        assert other.is_dir()
    long_ago = time.time() - 2 * leftovers.QUIET
    os.utime(other, (long_ago, long_ago))
    with atomic_folder(tmp_path / "a"):
        assert not other.exists()


def test_files_that_a_library_writes_beside_its_own_go_too(tmp_path):
    with pytest.raises(SoftpromptError), atomic_file(tmp_path / "it") as temporary:
        temporary.with_name(".tmpAbCdEf").write_text("half")
        raise SoftpromptError("the disk is full")
    assert not list(tmp_path.iterdir())


def test_every_folder_of_a_save_is_flushed(tmp_path, monkeypatch):
    flushed: list[str] = []
    monkeypatch.setattr("softprompt.storage._sync", lambda path: flushed.append(path.name))
    with atomic_folder(tmp_path / "a") as new:
        (new / "members" / "one").mkdir(parents=True)
        (new / "members" / "one" / "file").write_text("")
    assert flushed[:3] == ["file", "one", "members"] and flushed[-1] == tmp_path.name and len(flushed) == 5


US = holding._us()
OTHER = "another-machine"


@pytest.mark.parametrize(
    ("text", "has_locks", "is_free"),
    [
        ("999999999", True, True),  # of an earlier version
        (f"1\n{US.host}\n{US.boot}\n", True, True),  # the lock is free, so that one has ended
        (f"1\n{OTHER}\n{US.boot}\n", True, bool(US.boot)),  # a container on this machine
        (f"1\n{US.host}\nbefore\n", True, True),
        (f"1\n{OTHER}\nits own\n", True, False),
        (f"1\n{OTHER}\nits own\n", False, False),
        (f"1\n{OTHER}\n{US.boot}\n", False, False),
        (f"1\n{US.host}\n{US.boot}\n", False, False),  # alive
        (f"999999999\n{US.host}\n{US.boot}\n", False, True),
        ("half a wor", True, True),
        ("", False, True),
    ],
)
def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, monkeypatch, text, has_locks, is_free):
    import fcntl

    def no_locks(*given):
        raise OSError("not supported")

    if not has_locks:
        monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / OWNER).write_text(text)
    if is_free:
        with held(tmp_path, "busy"):
            assert (tmp_path / OWNER).read_text().startswith(f"{US.pid}\n{US.host}\n")
        assert not (tmp_path / OWNER).exists()
        return
    name = OTHER if OTHER in text else US.host
    with (
        pytest.raises(
            SoftpromptError, match=rf"busy \(process 1 on {name}\); if that process has ended, remove .*owner"
        ),
        held(tmp_path, "busy"),
    ):
        pytest.fail("taken over in silence")
    assert (tmp_path / OWNER).read_text() == text
