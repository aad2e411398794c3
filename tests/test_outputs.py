"""What is written keeps its form, its rows' own fields, and is refused before the work where it cannot be written."""

from __future__ import annotations

import csv
import datetime
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from softprompt.cli import main, predict, serving
from softprompt.cli.outputs import behind_links, files_of, refuse_replacing
from softprompt.data import read_rows
from softprompt.data.writers import ENDINGS, check_output, check_rows, write_rows
from softprompt.errors import ConfigError, DataError, SoftpromptError
from softprompt.storage import check_writable, write_json
from softprompt.tasks import Task
from softprompt.training import load_run

ROWS = [
    {"text": 'a "quoted", cell\nof two lines', "label": "good", "probabilities": {"good": 0.75}},
    {"text": "tab\there, and an old Mac's\rline", "label": "bad", "probabilities": {"good": 0.25}, "more": "é中"},
]


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_written_is_read_again(tmp_path, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    write_rows(tmp_path / f"rows{ending}", ROWS)
    found = [row.values for row in read_rows(tmp_path / f"rows{ending}")]
    assert [row["text"] for row in found] == [row["text"] for row in ROWS]
    assert [row["label"] for row in found] == ["good", "bad"] and found[1]["more"] == "é中"
    kept = [row["probabilities"] for row in found]
    assert [json.loads(one) if isinstance(one, str) else one for one in kept] == [{"good": 0.75}, {"good": 0.25}]


def test_values_that_json_has_no_words_for(tmp_path):
    rows = [{"when": datetime.date(2026, 1, 2), "nothing": float("nan"), "bytes": b"\x01", "half": "\ud800"}]
    write_rows(tmp_path / "x.jsonl", rows)
    assert json.loads((tmp_path / "x.jsonl").read_text()) == {
        "when": "2026-01-02",
        "nothing": None,
        "bytes": "01",
        "half": "\ud800",
    }
    write_rows(tmp_path / "x.csv", rows)
    with (tmp_path / "x.csv").open(encoding="utf-8") as file:
        assert next(csv.DictReader(file))["nothing"] == ""


def test_places_and_forms_that_cannot_be_written(tmp_path):
    for name in ("x.txt", "x", "x.xlsx", "x.csv.gz"):
        with pytest.raises(DataError, match=r"are not written; use \.jsonl, .*\.parquet"):
            check_output(tmp_path / name)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(SoftpromptError, match="is a folder"):
        check_output(tmp_path / "folder.csv")
    with pytest.raises(SoftpromptError, match="cannot be written"):
        check_output(tmp_path / ("n" * 300 + ".csv"))
    assert not (tmp_path / "x.txt").exists()
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match=r"x\.parquet: a column holds"):
        check_rows(tmp_path / "x.parquet", [{"a": 1}, {"a": "text"}, {"a": {"b": 1}}])


def test_a_rows_own_fields_come_back_as_they_were(capsys):
    rows = [{"text": "joy", "label": "good"}, {"text": "rain", "predicted_label": 1}]
    answers = [{"artifact": "a", "label": "bad", "probabilities": {}}, {"artifact": "a", "text": "written"}]
    found = predict._beside(rows, answers)
    assert all(out.items() >= row.items() for row, out in zip(rows, found, strict=True))
    assert found[0]["predicted_label_2"] == "bad" and found[1]["predicted_text"] == "written"
    assert "'label' is 'predicted_label_2'" in capsys.readouterr().err
    assert predict._beside([{"text": "joy", "artifact": "a"}], answers[:1])[0]["label"] == "bad"


def test_a_folder_by_the_whole_argument_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lr=0.01").mkdir()
    assert serving.named_folders(["lr=0.01", "b=lr=0.01", "c=elsewhere"]) == {
        "lr=0.01": Path("lr=0.01"),
        "b": Path("lr=0.01"),
        "c": Path("elsewhere"),
    }
    with pytest.raises(ConfigError, match="two artifacts are called 'c'"):
        serving.named_folders(["c=a", "c=b"])


def test_rows_are_asked_by_the_tasks_columns():
    spec = {"template": {"input": "{{ text }}", "cue": ":"}, "verbalizer": ["a", "b"]}
    task = Task.load({"name": "t", "data": {"columns": {"text": ["review", "body"], "label": "stars"}}, **spec})
    tasks = {"t": task}
    assert predict._problem({"review": "x", "stars": "a"}, tasks, "t") is None
    assert predict._asked({"review": "x", "text": "title"}, tasks, "t")["text"] == "x"  # as in training
    assert predict._asked({"text": "own"}, tasks, "t")["text"] == "own"
    assert "missing field 'text'" in predict._problem({"stars": "a"}, tasks, "t")


def test_outputs_replace_nothing_that_is_read_or_kept(tmp_path):
    run, rows = tmp_path / "run", tmp_path / "rows.jsonl"
    (run / "artifact").mkdir(parents=True)
    kept = [run / "result.json", run / "artifact" / "manifest.json", run / "artifact" / "README.md", rows]
    for path in kept:
        path.touch()
    (tmp_path / "link.jsonl").symlink_to(rows)
    for path in (*kept, tmp_path / "link.jsonl"):
        with pytest.raises(ConfigError, match=r"would replace a file|is a file of the (run|artifact) "):
            refuse_replacing({"--json": path}, [rows, "movie-reviews"])
    with pytest.raises(ConfigError, match=r"--outcomes .*: is the same file as --json"):
        refuse_replacing({"--json": tmp_path / "new.json", "--outcomes": run / ".." / "new.json"})
    refuse_replacing({"--json": tmp_path / "result.json", "--outcomes": run / "more.json", "--output": None}, [rows])
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=r"config\.json: is a file of the model "):
        refuse_replacing({"--json": tmp_path / "config.json"})


def test_a_runs_own_files_are_known(tmp_path):
    task = {
        "name": "t",
        "template": {"input": "{{ text }}"},
        "verbalizer": ["a", "b"],
        "data": {"source": "rows.jsonl"},
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    (tmp_path / "run.yaml").write_text("{task: task.yaml, method: soft}")
    found = files_of(load_run(tmp_path / "run.yaml", []))
    assert [path.name for path in found] == ["task.yaml", "rows.jsonl"] and {path.parent for path in found} == {
        tmp_path
    }
    assert files_of(None) == []


def test_pipes_are_written_into_and_links_stay(tmp_path):
    pipe, link = tmp_path / "pipe.json", tmp_path / "link.json"
    os.mkfifo(pipe)
    link.symlink_to("target.json")
    with ThreadPoolExecutor(1) as others:
        read = others.submit(pipe.read_text)
        check_writable(pipe)
        write_json(pipe, [1])
        assert json.loads(read.result(timeout=5)) == [1] and pipe.is_fifo()
    write_json(behind_links(link), [2])
    assert link.is_symlink() and json.loads((tmp_path / "target.json").read_text()) == [2]
    assert behind_links(Path("/dev/stdout")) == Path("/dev/stdout") and behind_links(None) is None


def test_a_figure_that_cannot_be_drawn_is_told_before_the_measurements(capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("sys.argv", ["softprompt", "bench", "speed", "--base", "none-is-loaded", "--plot", "x.doc"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2 and "--plot x.doc: no such format; name a file that ends in" in capsys.readouterr().err


def test_a_pipe_without_an_ending_holds_json_lines(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "stdin"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as others:
        others.submit(pipe.write_text, '{"text": "joy"}\n')
        assert [row.values for row in read_rows(pipe)] == [{"text": "joy"}]
    (tmp_path / "rows.csv").write_text("text\njoy\n")
    link.symlink_to("rows.csv")  # as the shell's `< rows.csv` shows itself
    assert [row.values for row in read_rows(link)] == [{"text": "joy"}]


@pytest.mark.parametrize("name", [None, ""])
def test_a_row_may_name_no_artifact(name):
    tasks = {"x": Task.load({"name": "t", "template": {"input": "{{ text }}"}, "verbalizer": ["a", "b"]})}
    assert predict._problem({"text": "fine", "artifact": name}, tasks, "x") is None
    assert "artifact 3 is not loaded" in (predict._problem({"text": "fine", "artifact": 3}, tasks, "x") or "")
