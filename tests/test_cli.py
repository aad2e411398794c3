"""The command line from outside: real processes, a small base in a folder, exit codes, one-line errors, nothing lost."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from helpers import tiny_rows
from models import tiny_model, tiny_tokenizer

from softprompt import registry
from softprompt.schema import explained
from softprompt.training import TrainSpec

KINDS = [registry.find("softprompt.methods", name) for name in registry.names("softprompt.methods")]

RUN = {
    "task": "task.yaml",
    "method": {"name": "infix", "length": 3},
    "train": {"epochs": 2, "batch_size": 8, "lr": 0.05},
}
TASK = {
    "version": 1,
    "name": "tiny",
    "data": {"source": "rows.jsonl", "split": {"train": 24, "dev": 12, "test": 12}},
    "template": {"instruction": "Good or bad? ", "input": "Text: {{ text }}", "cue": "\nIt is:"},
    "verbalizer": {"good": "good", "bad": "bad"},
}


@dataclass
class Done:
    """What a command left: exit code and output."""

    returncode: int
    stdout: str
    stderr: str


def cli(*args, cwd):
    """Run a command in this process (starting one costs seconds); `test_as_a_process` runs the real thing."""
    from softprompt.cli import main

    out, err, code, before = io.StringIO(), io.StringIO(), 0, Path.cwd()
    argv, sys.argv = sys.argv, ["softprompt", *map(str, args)]
    os.chdir(cwd)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        os.chdir(before)
        sys.argv = argv
    return Done(code, out.getvalue(), err.getvalue())


def process(*args, cwd):
    """Run a command as a user does, offline: nothing here may reach a network."""
    return subprocess.run(
        [sys.executable, "-m", "softprompt", *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        timeout=300,
    )


def refused(done, *words):
    """Exit code 2, one line that begins with `error:`, no traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    return lines[0]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a base, rows, task and run file, and one finished run."""
    folder = tmp_path_factory.mktemp("work")
    tiny_model("llama").save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    rows = [row.values for part in tiny_rows(30, 15, 15).values() for row in part]
    for place, row in enumerate(rows):
        row["text"] += f" {place}"
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "task.yaml").write_text(yaml.safe_dump(TASK), encoding="utf-8")
    (folder / "run.yaml").write_text(yaml.safe_dump({**RUN, "base": str(folder / "base")}), encoding="utf-8")
    done = cli("train", "run.yaml", "--out", "first", "--test", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout and "artifact: first/artifact" in done.stdout
    assert "training" in done.stderr  # plain progress lines where there is no terminal
    return folder


def test_train_leaves_what_it_should(work):
    names = {path.name for path in (work / "first").iterdir()}
    assert names == {"artifact", "checkpoint.pt", "events.jsonl", "result.json", "run.yaml"}
    held = {path.name for path in (work / "first" / "artifact").iterdir()}
    assert held == {"adapter_model.safetensors", "manifest.json", "README.md"}  # PEFT cannot express an infix
    assert yaml.safe_load((work / "first" / "run.yaml").read_text())["method"]["length"] == 3


def test_eval_writes_the_promised_json(work, tmp_path):
    done = cli("eval", "first", cwd=work)  # the run's folder knows its data
    assert done.returncode == 0 and "on 12 rows" in done.stdout, done.stderr
    alone = shutil.copytree(work / "first" / "artifact", tmp_path / "alone")
    refused(cli("eval", alone, "--base", work / "base", cwd=work), "--data")  # an artifact opens no files that it names
    done = cli("eval", "first", "--data", "rows.jsonl", "--json", "score.json", "--outcomes", "out.jsonl", cwd=work)
    assert done.returncode == 0, done.stderr
    score = json.loads((work / "score.json").read_text())
    assert set(score) == {"metric", "value", "interval", "rows"} and score["rows"] == 60
    assert score["interval"][0] <= score["value"] <= score["interval"][1]
    rows = [json.loads(line) for line in (work / "out.jsonl").read_text().splitlines()]
    assert len(rows) == 60 and sum(row["gold"] == row["predicted"] for row in rows) == round(score["value"] * 60)


def test_predict_swaps_per_row(work):
    done = cli("train", "run.yaml", "method.name=soft", "seed=1", "--out", "second", cwd=work)
    assert done.returncode == 0, done.stderr
    rows = [{"text": "joy", "artifact": "second"}, {"text": "rain"}, {"text": "joy", "artifact": "first"}]
    (work / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = cli("predict", "first", "second", "--input", "ask.jsonl", cwd=work)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["artifact"] for row in found] == ["second", "first", "first"]
    assert all(
        row["label"] in ("good", "bad") and sum(row["probabilities"].values()) == pytest.approx(1) for row in found
    )
    (work / "ask.jsonl").write_text(
        '{"text": "joy", "artifact": "secnd"}\n{"txt": 1}\n{"text": "a", "artifact": ["x"]}\n'
    )
    refused(
        cli("predict", "first", "second", "--input", "ask.jsonl", cwd=work),
        "ask.jsonl:1",
        "did you mean 'second'",
        "ask.jsonl:2",
        "missing field 'text'",
        "ask.jsonl:3",
    )


def test_events_tell_the_whole_run(work):
    events = [json.loads(line) for line in (work / "first" / "events.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "start" and "run once per row" in events[0]["plan"]
    counts = dict.fromkeys(("copies", "contradicting", "held_out", "unlabelled", "leaked", "unusable"), 0)
    assert events[0]["duplicates"] == counts | {"examples": []}
    assert {event["event"] for event in events} - {"doctor"} == {"start", "step", "dev", "trained", "final", "end"}


def test_a_run_goes_on_from_anywhere(work, tmp_path):
    """The kept run file means the same from another folder, and a stranger's run.yaml beside an artifact means nothing."""
    done = cli("eval", work / "first", cwd=tmp_path)
    assert done.returncode == 0 and "on 12 rows" in done.stdout, done.stderr
    again = cli("train", work / "first" / "run.yaml", "--out", tmp_path / "again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    for file in (work / "first" / "artifact").iterdir():
        if file.suffix == ".safetensors":
            assert file.read_bytes() == (tmp_path / "again" / "artifact" / file.name).read_bytes()
    shutil.copytree(work / "first" / "artifact", tmp_path / "mine" / "prompt")
    (tmp_path / "mine" / "run.yaml").write_text("base: nothing\n")
    mine = tmp_path / "mine" / "prompt"
    done = cli("eval", mine, "--base", work / "base", "--data", work / "rows.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_places_that_cannot_be_written(work, tmp_path):
    (tmp_path / "file").write_text("mine")
    refused(cli("train", "run.yaml", "--out", tmp_path / "file" / "run", cwd=work), "cannot be written")
    refused(cli("train", "run.yaml", "--out", tmp_path / "file", cwd=work), "is a file")
    refused(cli("predict", "first", "--input", "rows.jsonl", "--output", tmp_path / "file" / "x.csv", cwd=work), "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_is_no_run_file_and_a_run_that_has_not_ended_is_no_artifact(work, tmp_path):
    refused(cli("train", work, "--out", tmp_path / "x", cwd=work), "is a folder; name a run file")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "run.yaml").write_text("base: smollm2\n")
    done = cli("predict", tmp_path / "cut", "--input", "rows.jsonl", cwd=work)
    refused(done, "is a run that has not ended; the same `softprompt train` command goes on with it")


def test_a_run_without_training_does_not_replace_another_runs_artifact(work):
    before = (work / "first" / "artifact" / "manifest.json").read_bytes()
    refused(cli("train", "run.yaml", "method={name: hard}", "--out", "first", cwd=work), "--fresh")
    assert (work / "first" / "artifact" / "manifest.json").read_bytes() == before


def test_what_looks_like_markup_is_shown_as_it_is(work):
    verbalizer = "{'[b]': good, '[/INST]': bad}"
    rows = [{"text": f"joy {i}", "label": ("[b]", "[/INST]")[i % 2]} for i in range(60)]
    (work / "marks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [f"task.verbalizer={verbalizer}", "task.data.source=marks.jsonl", "method={name: hard}"]
    done = cli("train", "run.yaml", *settings, "--out", "marks", cwd=work)
    assert done.returncode == 0, done.stderr
    assert cli("inspect", "marks", cwd=work).returncode == 0
    refused(cli("train", "run.yaml", settings[0], settings[2], "--out", "marks2", cwd=work), "'[/INST]'")


def test_inspect_methods_help(work):
    done = cli("inspect", "second", "--words", "100000", cwd=work)  # more than the vocabulary has
    assert done.returncode == 0 and "nearest words" in done.stdout and "tiny" in done.stdout, done.stderr
    assert json.loads(cli("inspect", "first", "--manifest", cwd=work).stdout)["format_version"] == 2
    done = cli("inspect", "second", "--html", "page.html", cwd=work)
    assert done.returncode == 0 and "page: page.html" in done.stdout, done.stderr
    page = (work / "page.html").read_text("utf-8")
    assert page.startswith("<!doctype html>") and "nearest words (cosine)" in page and "trained, " in page
    refused(cli("inspect", "first", "--html", "first/run.yaml", cwd=work), "is a file of the run")
    listed = cli("methods", cwd=work).stdout.splitlines()
    assert len(listed) >= 5 and any(line.startswith("infix ") for line in listed)
    assert "method.length" in cli("methods", "infix", cwd=work).stdout
    for verb in (
        "train",
        "eval",
        "predict",
        "inspect",
        "sweep",
        "distil",
        "prune",
        "import",
        "export",
        "bench speed",
        "data get",
        "base get",
    ):
        done = cli(*verb.split(), "--help", cwd=work)
        assert done.returncode == 0 and "Example" in done.stdout, verb


def test_sweep_encodes_once(work):
    done = cli("sweep", "run.yaml", "train.lr=0.01,0.05", "seed=0,1", "--out", "sweep", "--test", cwd=work)
    assert done.returncode == 0, done.stderr
    report = json.loads((work / "sweep" / "sweep.json").read_text())
    assert len(report["trials"]) == 4 and report["test"]["rows"] == 12
    assert (work / "sweep" / report["best"] / "artifact" / "manifest.json").exists()
    lr, seed = next(re.findall(r"lr=(.+)_seed=(.+)", trial["name"])[0] for trial in report["trials"])
    asked = ["--test"] if report["best"] == f"lr={lr}_seed={seed}" else []
    alone = cli("train", "run.yaml", f"train.lr={lr}", f"seed={seed}", "--out", "alone", *asked, cwd=work)
    assert alone.returncode == 0
    for file in (work / "alone" / "artifact").iterdir():  # sharing the encoding changes no bit
        assert file.read_bytes() == (work / "sweep" / f"lr={lr}_seed={seed}" / "artifact" / file.name).read_bytes()

    # called again it drops nothing that was measured
    rate = re.findall("lr=(.+)_", report["best"])[0]
    done = cli("sweep", "run.yaml", f"train.lr={rate},0.02", "seed=0,1", "--out", "sweep", cwd=work)
    assert done.returncode == 0 and "this run is finished; nothing was changed" in done.stderr, done.stderr
    again = json.loads((work / "sweep" / "sweep.json").read_text())
    assert {one["name"] for one in again["trials"] + again["earlier"]} == {
        f"lr={lr}_seed={seed}" for lr in ("0.01", "0.05", "0.02") for seed in "01"
    }
    if again["best"] == report["best"]:
        assert again["test"] == report["test"]
    held = json.loads((work / "sweep" / report["best"] / "artifact" / "manifest.json").read_text())
    assert held["metrics"]["test"]["value"] == report["test"]["value"]


def test_a_search_from_the_command_line(work):
    refused(cli("sweep", "run.yaml", cwd=work), "nothing varies; give values")
    refused(cli("sweep", "run.yaml", "seed=0,1", "--no-prune", cwd=work), "--no-prune goes with --optuna N")
    refused(cli("sweep", "run.yaml", "seed=0..3", cwd=work), "a range is searched with --optuna N")
    command = ["sweep", "run.yaml", "train.lr=0.01..0.1:log", "--optuna", "2", "--out", "search"]
    done = cli(*command, "--test", "--json", cwd=work)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (
        len(report["trials"]) == 2 and report["searched"] == ["train.lr=0.01..0.1:log"] and report["test"]["rows"] == 12
    )
    assert (work / "search" / report["best"] / "artifact").is_dir() and (work / "search" / report["study"]).is_file()
    assert "searching train.lr=0.01..0.1:log for the lowest dev log loss, 2 trials in all" in done.stderr
    shown = cli(*command, cwd=work)
    assert all(trial["name"] in shown.stdout for trial in report["trials"])
    assert (
        "optuna-dashboard sqlite:///search/study.db" in shown.stdout and "train" not in shown.stderr.partition("all")[2]
    )


def test_as_a_process(work):
    """(What it does beyond starting and ending is tested within this process.)"""
    refused(process("train", "run.yaml", "method.lenght=3", "--out", "bad", cwd=work), "did you mean 'length'")
    assert cli(cwd=work).returncode in (0, 2)


@pytest.mark.parametrize(
    "settings, words",
    [
        (["method.lenght=3"], ["unknown key 'lenght'", "did you mean 'length'"]),
        (["method.name=prefx"], ["no method 'prefx'", "did you mean 'prefix'"]),
        (["train.epochs=many"], ["train.epochs", "'many'"]),
        (["train.ephocs=1", "colour=1"], ["did you mean 'epochs'", "unknown key 'colour'"]),
        (["epochs"], ["expected key=value"]),
        (["method.cue=99"], ["method.cue is 99", "tokens between input and answer"]),
        (["task.template.cue=''"], ["the template has 0 tokens"]),
        (["task.verbalizer.bad=good"], ["stands for both"]),
        (["base=no-such-base"], ["no-such-base", "smollm2"]),
        (["task=nothing"], ["no task 'nothing'"]),
        (["task.data.source=missing.jsonl"], ["missing.jsonl"]),
        (["task.data.split.train=1000"], ["1000"]),
        (["task.template.answer=' yes'"], ["{{ answer }}"]),
        (["task.data.split.seed=-1"], ["split.seed"]),
        (["task.data.split.train=.nan"], ["split.train"]),
        (["base.device=cuad"], ["device 'cuad'", "use auto, cpu or cuda"]),
        (["method.init=artifact", "method.artifact=base"], ["manifest.json"]),
    ],
)
def test_bad_settings_are_one_line_and_exit_2(work, settings, words):
    refused(cli("train", "run.yaml", *settings, "--out", "bad", cwd=work), *words)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", ["rows.jsonl", "empty"]),
        (
            b'{"text": "a", "label": "good"}\n{"text": "b", "label": "meh"}\n{"label": "bad"}\n',
            [":2:", "'meh'", ":3:", "'text'"],
        ),
        (b'{"text": "a", "label": "good"}\n{"text": \n', [":2:"]),
        (b'{"text": "a\xff", "label": "good"}\n', [":1:", "UTF-8"]),
        (b'["a", "good"]\n', [":1:"]),
    ],
)
def test_bad_rows_are_told_by_line(work, content, words):
    folder = work / "bad-rows"
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_bytes(content)
    (folder / "task.yaml").write_text(yaml.safe_dump(TASK))
    (folder / "run.yaml").write_text(yaml.safe_dump({**RUN, "base": str(work / "base")}))
    refused(cli("train", "run.yaml", "--out", "bad", cwd=folder), *words)
    assert not (folder / "bad" / "artifact").exists()


def test_long_texts_are_cut_and_counted(work):
    rows = [
        {"text": f"joy {'x' * 400} {i}" if i < 5 else f"rain {i}", "label": ("good", "bad")[i % 2]} for i in range(60)
    ]
    (work / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = cli("train", "run.yaml", "task.data.source=long.jsonl", "train.epochs=1", "--out", "long", cwd=work)
    assert done.returncode == 0 and "texts were longer than the base's context" in done.stderr, done.stderr


def test_bases_that_cannot_do_the_task(work):
    """A masked model answers at its mask, but writes no text; an encoder-decoder model does both."""
    for family, frame in (("bert", "masked"), ("t5", "seq2seq")):
        tiny_model(family).save_pretrained(work / family)
        tiny_tokenizer(frame=frame).save_pretrained(work / family)
    task = {
        "name": "w",
        "type": "generation",
        "data": {"source": "written.jsonl", "split": {"train": 20, "dev": 10, "test": 10}},
        "template": {"input": "{{ text }}"},
    }
    rows = [{"text": f"row {i}", "answer": f"out {i}"} for i in range(40)]
    (work / "written.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (work / "written.yaml").write_text(json.dumps({"base": "bert", "task": task, "method": "soft"}), encoding="utf-8")
    refused(cli("train", "written.yaml", "--out", "bad", cwd=work), "type classification or choice")
    done = cli("train", "written.yaml", "base=t5", "train.max_steps=2", "--test", "--out", "t5-run", cwd=work)
    assert done.returncode == 0 and "test chrf" in done.stdout, done.stderr
    done = cli("predict", "t5-run", "--input", "written.jsonl", cwd=work)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 40, done.stderr


def test_artifact_of_another_base_and_damaged_ones(work):
    tiny_model("llama", seed=5).save_pretrained(work / "other")
    tiny_tokenizer().save_pretrained(work / "other")
    refused(cli("eval", "first", "--data", "rows.jsonl", "--base", "other", cwd=work), "belongs to base")
    refused(cli("eval", "nowhere", cwd=work), "nowhere")
    refused(cli("inspect", "base", cwd=work), "manifest.json")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_loses_nothing(work, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        done = cli("train", "run.yaml", "method={name: probe}", "--out", small / "run", cwd=work)
        assert done.returncode == 0, done.stderr
        before = {path.name: path.read_bytes() for path in (small / "run" / "artifact").iterdir()}
        (small / "filler").write_bytes(b"x" * 300_000)
        done = cli(
            "train", "run.yaml", "method={name: prefix, length: 200}", "--out", small / "run", "--fresh", cwd=work
        )
        refused(done, "cannot be written", "space")
        assert {path.name: path.read_bytes() for path in (small / "run" / "artifact").iterdir()} == before
    finally:
        subprocess.run(["umount", small], check=True)


LIGHT = """
import sys
def told(*names): print([name for name in names if name in sys.modules])
import softprompt
told("peft", "bitsandbytes", "torch", "transformers")
from softprompt import Base, train
import softprompt.cli
told("peft", "bitsandbytes")
Base.load("base", device="cpu")
told("bitsandbytes")
"""


def test_what_is_not_asked_for_is_not_imported(work):
    done = subprocess.run([sys.executable, "-c", LIGHT], cwd=work, capture_output=True, text=True)
    assert done.stdout.split("\n") == ["[]"] * 3 + [""], done.stderr


def test_peft_folder_comes_in(work):
    peft = pytest.importorskip("peft")
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    peft.get_peft_model(tiny_model("llama"), config).save_pretrained(work / "from-peft")
    done = cli("import", "from-peft", "--task", "task.yaml", "--base", "base", "--out", "imported", cwd=work)
    assert done.returncode == 0, done.stderr
    done = cli("eval", "imported", "--data", "rows.jsonl", "--base", "base", cwd=work)
    assert done.returncode == 0 and "accuracy" in done.stdout, done.stderr


def test_paths_of_this_machine_stay_here(work):
    for file in (work / "first" / "artifact").iterdir():
        assert str(Path(work)).encode() not in file.read_bytes(), file


def test_doctor_before_and_after_training(work, tmp_path):
    done = cli("doctor", "run.yaml", "method.name=soft", "--rows", 4, "--json", tmp_path / "found.json", cwd=work)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "✓ effect: segment 'prompt' [3, 64]" in done.stdout and "– artifact" in done.stdout
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert {tuple(sorted(one)) for one in found} == {("advice", "check", "level", "what")}
    assert len(done.stdout.splitlines()) == len(found) + 1
    done = cli("doctor", "first", "--full", cwd=work)
    assert done.returncode == 0 and "✓ metric: dev accuracy" in done.stdout, done.stdout
    alone = shutil.copytree(work / "first" / "artifact", tmp_path / "alone")
    done = cli("doctor", alone, "--base", work / "base", cwd=work)
    assert done.returncode == 0 and "made-up rows" in done.stdout, done.stdout
    refused(cli("doctor", "first", "method.length=9", cwd=work), "trained already")
    refused(cli("doctor", "nowhere", cwd=work), "no such file or folder")


def test_doctor_and_training_stop_at_an_error(work, tmp_path):
    changes = ("task.template.answer=' {{ answer | lower }}'", "task.verbalizer={good: Bad, bad: bad}")
    done = cli("doctor", "run.yaml", *changes, cwd=work)
    assert done.returncode == 2 and "✗ labels: 'good' and 'bad' are answered with the same tokens" in done.stdout
    line = refused(cli("train", "run.yaml", *changes, "--out", tmp_path / "no", cwd=work), "same tokens")
    assert "--no-check" in line and not (tmp_path / "no" / "artifact").exists()
    done = cli("train", "run.yaml", *changes, "--out", tmp_path / "yes", "--no-check", cwd=work)
    assert done.returncode == 0, done.stderr
    damaged = shutil.copytree(work / "first" / "artifact", tmp_path / "damaged")
    file = damaged / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    done = cli("doctor", damaged, cwd=work)
    assert done.returncode == 2 and "✗ artifact:" in done.stdout and "sha256" in done.stdout


def test_plain_lines_tell_each_look_once(capsys):
    from softprompt.cli.console import _PlainLines

    show = _PlainLines()
    for step in range(1, 7):
        if step % 3 == 0:
            for done in (4, 8, 12):
                show("evaluating", done, 12)
        show(f"training, loss 1.000, dev 0.{step}", step, 6)
    show("evaluating", 12, 12)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "training, loss 1.000, dev 0.1: 1/6",
        "training, loss 1.000, dev 0.3: 3/6",
        "training, loss 1.000, dev 0.6: 6/6",
        "evaluating: 12/12",
    ]


@pytest.mark.parametrize("spec", [TrainSpec, *(kind.Spec for kind in KINDS)], ids=lambda spec: spec.__name__)
def test_every_setting_of_every_method_is_explained(spec):
    """In the docstrings, from which `softprompt methods NAME` takes it."""
    told = explained(spec)
    assert not [name for name in spec.model_fields if name != "name" and not told.get(name)]


def test_every_package_is_installed():
    """A wheel holds what pyproject lists, and nothing more."""
    root = Path(__file__).parents[1]
    listed = set(re.findall(r'^    "(softprompt[\w.]*)",$', (root / "pyproject.toml").read_text("utf-8"), re.MULTILINE))
    folders = {path.parent.relative_to(root) for path in (root / "softprompt").rglob("__init__.py")}
    there = {".".join(folder.parts) for folder in folders}
    there |= {"softprompt.adapters", "softprompt.benchmarks", "softprompt.examples"}
    inside = [path.parent.relative_to(root) for path in (root / "benchmarks").rglob("__init__.py")]
    there |= {".".join(("softprompt", *folder.parts)) for folder in inside}
    assert listed == there
