"""Hostile and damaged artifacts: refused in one line, or they answer; nothing else, and nothing changes in silence."""

from __future__ import annotations

import json
import random
import time
import warnings
from pathlib import Path

import pytest
from helpers import tiny_rows, tiny_task
from hostile import flipped, kinds, made
from models import tiny_base

from softprompt.artifact import load
from softprompt.errors import MAX_MESSAGE, ArtifactError, SoftpromptError
from softprompt.runtime import Runtime
from softprompt.training import train

METHODS = {
    "soft": {"name": "soft", "length": 3},
    "infix": {"name": "infix", "length": 2},
    "prefix": {"name": "prefix", "length": 2},
    "lora": {"name": "lora", "r": 2},
    "probe": {"name": "probe"},
    "joint": {"name": "joint", "parts": [{"name": "soft", "length": 2}, {"name": "lora", "r": 1}]},
    "headed": {"name": "soft", "length": 2, "head": True},
}
SAMPLE = 40  # kinds of each method by default; `full` takes them all
ROWS = [{"text": "joy and sun"}, {"text": "rain"}]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    root = tmp_path_factory.mktemp("artifacts")
    task = tiny_task(demonstrations={"k": 1}, scoring={"calibration": "contextual"})
    plain = tiny_task(demonstrations={"k": 1})
    for name, method in METHODS.items():
        ours = plain if name in ("headed", "probe") else task
        train(
            tiny_base(), ours, method, root / name, train={} if name == "probe" else {"max_steps": 1}, rows=tiny_rows()
        )
    return root


def answers(folder: Path) -> list[dict[str, float]]:
    """What an artifact answers, or SoftpromptError."""
    runtime = Runtime(tiny_base())
    runtime.add("it", folder)
    return [found.probabilities for found in runtime.predict(ROWS, "it")]


def check_kind(folder: Path, name: str) -> str | None:
    """What is wrong with how a changed artifact is met, or None."""
    began = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answers(folder)
    except SoftpromptError as error:
        if not str(error).isprintable() or len(str(error)) > 2 * MAX_MESSAGE:
            return f"{name}: not one line that can be shown: {str(error)[:200]!r}"
    except Exception as error:
        return f"{name}: {type(error).__name__}: {error}"
    taken = time.process_time() - began
    return f"{name}: took {taken:.1f} s" if taken > 1 else None


def check_kinds(folder: Path, to: Path, chosen) -> None:
    """All of them, told together."""
    problems = [check_kind(made(folder, to, change), name) for name, change in chosen]
    assert not [problem for problem in problems if problem], "\n".join(filter(None, problems))


@pytest.mark.parametrize("method", METHODS)
def test_hostile_kinds(artifacts, tmp_path, method):
    folder = artifacts / method / "artifact"
    chosen = random.Random(method).sample(list(kinds(folder)), SAMPLE)
    check_kinds(folder, tmp_path / "it", chosen)


@pytest.mark.full
@pytest.mark.parametrize("method", METHODS)
def test_all_hostile_kinds(artifacts, tmp_path, method):
    folder = artifacts / method / "artifact"
    check_kinds(folder, tmp_path / "it", kinds(folder))


def check_mutations(artifacts: Path, to: Path, count: int, seed: int) -> None:
    """Damage files at random: a typed error, or the very same answers; a manifest says the same as before or is refused."""
    rng = random.Random(seed)
    folders = {name: artifacts / name / "artifact" for name in METHODS}
    right = {name: (answers(folder), load(folder).digest) for name, folder in folders.items()}
    copies = {name: made(folder, to / name, lambda _: None) for name, folder in folders.items()}
    for number in range(count):
        name = rng.choice(sorted(METHODS))
        file = rng.choice(sorted(path.name for path in folders[name].iterdir()))
        whole, damaged = (folders[name] / file).read_bytes(), copies[name] / file
        damaged.write_bytes(flipped(whole, rng))
        try:
            held = load(copies[name])
            if file == "manifest.json":
                assert json.loads(damaged.read_text()) == json.loads(whole)
            same = held.digest == right[name][1]
            assert same or answers(copies[name]) == right[name][0], f"{number}: {name}/{file} answers something else"
        except SoftpromptError as error:
            assert isinstance(error, ArtifactError) and str(error).isprintable(), (number, name, file, str(error))
        damaged.write_bytes(whole)


def test_mutations(artifacts, tmp_path):
    check_mutations(artifacts, tmp_path, 1_000, 0)


@pytest.mark.full
def test_ten_thousand_mutations(artifacts, tmp_path):
    check_mutations(artifacts, tmp_path, 10_000, 1)
