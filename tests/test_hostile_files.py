"""Folders of strangers: each kind is refused in one line, soon, in little memory, and nothing in it is run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from helpers import tiny_rows, tiny_task
from hostile import CONTROL, made
from hostile_files import BOMB, ENSEMBLES, HARMLESS, IMPORTED, REFUSED, RUNS, edit
from models import tiny_base, tiny_model, tiny_tokenizer

from softprompt.artifact import load
from softprompt.artifact.card import model_card
from softprompt.cli import main
from softprompt.cli.console import base_of
from softprompt.ensemble import save_ensemble
from softprompt.errors import MAX_MESSAGE, SoftpromptError
from softprompt.exporting.format import Written
from softprompt.exporting.readme import readme
from softprompt.runtime import Runtime
from softprompt.training import train
from softprompt.training.importing import import_peft, read_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes, devices and sparse files are Unix")
SECONDS, MEGABYTES = 1.0, 300.0


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A soft prompt, a LoRA and their ensemble."""
    root = tmp_path_factory.mktemp("made")
    for name, method in (("soft", {"name": "soft", "length": 2}), ("lora", {"name": "lora", "r": 2})):
        settings = {"train": {"max_steps": 1}, "rows": tiny_rows(), "check": False}
        train(tiny_base(), tiny_task(), method, root / name, **settings)
    save_ensemble(root / "both", [(root / "soft", 0.5), (root / "lora", 0.5)])
    return root


def answers(folder: Path) -> list[dict[str, float]]:
    runtime = Runtime(tiny_base())
    runtime.add("it", folder)
    return [found.probabilities for found in runtime.predict([{"text": "joy"}], "it")]


def imported(folder: Path) -> None:
    import_peft(read_folder(folder), tiny_base(), tiny_task(), folder.parent / "imported", lambda text: None)


def run_of_a_stranger(root: Path, to: Path, change) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(root / "soft", to)
    (to / "run.yaml").unlink()
    change(to)
    return to


def problem_of(act, folder: Path) -> str | None:
    """What is wrong with how a folder is refused, or None."""
    began = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            act(folder)
        return "is accepted"
    except SoftpromptError as error:
        if not str(error).isprintable() or len(str(error)) > 2 * MAX_MESSAGE:
            return f"not one line that can be shown: {str(error)[:200]!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    taken = time.process_time() - began
    return f"took {taken:.1f} s" if taken > SECONDS else None


@pytest.mark.parametrize(
    ("kinds", "source", "act"),
    [(REFUSED, "soft/artifact", answers), (IMPORTED, "lora/artifact", imported), (ENSEMBLES, "both", answers)],
    ids=["artifacts", "imported", "ensembles"],
)
def test_every_kind_is_refused_in_one_line(root, tmp_path, monkeypatch, kinds, source, act):
    monkeypatch.chdir(tmp_path)
    problems = {name: problem_of(act, made(root / source, tmp_path / "it", change)) for name, change in kinds.items()}
    assert not {name: problem for name, problem in problems.items() if problem}
    assert {path.name for path in tmp_path.iterdir()} <= {"it", "imported"}


def test_run_files_of_strangers_are_refused_or_left_alone(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problems = {
        name: problem_of(lambda folder: base_of(folder, "tiny", None), run_of_a_stranger(root, tmp_path / "it", change))
        for name, change in RUNS.items()
    }
    assert not {name: problem for name, problem in problems.items() if problem} and not Path(BOMB).exists()


def test_what_lies_beside_an_artifact_changes_nothing(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    want = answers(root / "soft")
    for name, change in HARMLESS.items():
        assert answers(made(root / "soft" / "artifact", tmp_path / "it", change)) == want, name
        (tmp_path / "linked").unlink(missing_ok=True)
    assert not Path(BOMB).exists()


@pytest.mark.parametrize("kind", ["terminal", "page", "card", "export"])
def test_what_is_shown_of_an_artifact_steers_no_terminal(root, tmp_path, monkeypatch, capsys, kind):
    """Control characters and paths in all that a manifest holds for people."""
    monkeypatch.chdir(tmp_path)

    def change(held):
        for key in ("training", "data", "versions"):
            held[key] |= {CONTROL: CONTROL, "../../x": CONTROL}
        held["base"] |= dict.fromkeys(("id", "dtype", "digest", "tokenizer_digest"), CONTROL)
        held["task"]["name"] = held["softprompt"] = CONTROL
        held["metrics"][CONTROL] = held["metrics"]["dev"] | {"metric": CONTROL, "signature": CONTROL}

    folder = made(root / "soft" / "artifact", tmp_path / "it", edit(change))
    if kind == "card":
        text = model_card(load(folder).manifest)
    elif kind == "export":
        text = readme("others", load(folder).manifest, Written("a prompt", "code"))
    else:
        monkeypatch.setattr(sys, "argv", ["softprompt", "inspect", "it", "--words", "0", "--html", "page.html"])
        with contextlib.suppress(SystemExit):
            main()
        shown = capsys.readouterr()
        text = Path("page.html").read_text() if kind == "page" else shown.out + shown.err
    assert "all is well" in text and not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)


MEASURED = """
import json, sys, time
from pathlib import Path
from softprompt.cli import main

def kilobytes(what):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if what in line)

Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before, began = kilobytes("VmRSS"), time.process_time()
try:
    main()
finally:
    told = [time.process_time() - began, (kilobytes("VmHWM") - before) / 1024]
    Path("told.json").write_text(json.dumps(told))
"""


LARGE = ("a million trained slots",)  # its tensors are read, copied and refused behind that: 1.3 s and 1.1 GB were seen


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's account of a process's memory")
def test_every_kind_by_the_command_line(root, tmp_path, monkeypatch, forks):
    """Exit code 2 and one line, at most a second after the imports and 300 MB above them, a tiny base's own included."""
    monkeypatch.chdir(tmp_path)
    tiny_model("llama").save_pretrained("base")
    tiny_tokenizer().save_pretrained("base")
    Path("ask.jsonl").write_text('{"text": "joy"}\n')
    task = {**tiny_task().spec.model_dump(exclude_none=True), "data": {"source": "ask.jsonl"}}
    Path("task.json").write_text(json.dumps(task))
    predict = ["predict", "it=it", "--base", "base", "--input", "ask.jsonl"]
    brought = ["import", "it", "--base", "base", "--task", "task.json", "--out", "imported"]
    groups = [
        (REFUSED, lambda change: made(root / "soft" / "artifact", Path("it"), change), predict),
        (ENSEMBLES, lambda change: made(root / "both", Path("it"), change), predict),
        (IMPORTED, lambda change: made(root / "lora" / "artifact", Path("it"), change), brought),
        (
            RUNS,
            lambda change: run_of_a_stranger(root, Path("it"), change),
            ["predict", "it=it", "--input", "ask.jsonl"],
        ),
    ]
    problems, slowest, largest = {}, 0.0, 0.0
    for kinds, make, words in groups:
        for name, change in kinds.items():
            make(change)
            command = [sys.executable, "-c", MEASURED, *words]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
            lines = [line for line in done.stderr.splitlines() if not line.startswith(("answering", "warning: "))]
            seconds, megabytes = json.loads(Path("told.json").read_text())
            slowest, largest = max(slowest, seconds), max(largest, megabytes)
            rows = [
                line for line in lines if line.startswith("ask.jsonl:1: ")
            ]  # each row that fails has a line of its own
            if done.returncode != 2 or len(lines) - len(rows) != 1 or not "".join(lines).isprintable() or done.stdout:
                problems[name] = f"exit code {done.returncode}, {lines[-3:]}"
            elif (seconds > SECONDS or megabytes > MEGABYTES) and name not in LARGE:
                problems[name] = f"{seconds:.1f} s, {megabytes:.0f} MB"
    print(f"{sum(len(kinds) for kinds, *_ in groups)} kinds, at most {slowest:.2f} s and {largest:.0f} MB")
    assert not problems and not os.path.exists(BOMB)  # noqa: PTH110
