"""A file of one's own: its columns are looked at, a run is proposed and written, and what cannot be used is told in a line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from models import tiny_model, tiny_tokenizer
from test_cli import cli, refused

from softprompt import yaml_file
from softprompt.cli.new import run_for_rows
from softprompt.config import parse
from softprompt.errors import ConfigError, DataError
from softprompt.proposal import command_of, look, propose_run, summary, written
from softprompt.run_reader import holds_rows, load_run
from softprompt.runfile import RunSpec
from softprompt.tasks import Task

WORDS = ("joy", "sun", "gift", "hope", "pain", "rain", "loss", "mud")


def saved(path: Path, columns: str, rows: list[str], coding: str = "utf-8") -> Path:
    path.write_text("\n".join([columns, *rows]) + "\n", encoding=coding)
    return path


def tickets(count: int = 24) -> list[str]:
    """Rows of a message, a team and its number."""
    teams = ("billing", "shipping", "account")
    return [f"a {WORDS[k % 8]} came with number {k},{teams[k % 3]},{k % 3}" for k in range(count)]


def proposed(path: Path, *text, label=None, kind=None):
    return propose_run(look(path, text, [] if label is None else [label], kind))


def test_a_proposal_is_a_run_and_its_file_is_read_as_the_same(tmp_path):
    path = saved(tmp_path / "my tickets.csv", "message,team,number", tickets())
    found = proposed(path, label="team")
    text = written(found, tmp_path, command_of(Path("x.yaml")))
    held = yaml_file.load(text, "x.yaml")
    assert held["task"]["data"]["source"] == "my tickets.csv"
    held["task"]["data"]["source"] = str(path.resolve())
    assert held == found.run
    spec = parse(RunSpec, held, "run")
    task = Task.load(spec.task)
    assert task.spec.data.columns == {"label": "team"} and task.words == ["account", "billing", "shipping"]
    assert [len(part) for part in found.splits.values()] == [17, 3, 4]
    for key in ("base", "task.type", "split", "verbalizer", "method", "train", "seed"):
        line = next(line for line in text.splitlines() if line.strip().startswith(key.split(".")[-1] + ":"))
        assert "  # " in line, line
    assert "number" in next(line for line in summary(found) if "gives the label away" in line)


def test_chinese_rows_get_a_chinese_proposal(tmp_path):
    rows = [f"第{k}条消息说{('天气', '球队')[k % 2]}很好,{('life', 'sport')[k % 2]}" for k in range(24)]
    found = proposed(saved(tmp_path / "c.csv", "text,label", rows))
    assert found.task["template"]["instruction"] == "请选择符合文本的标签：life或sport。\n\n"
    assert found.task["template"]["input"] == "文本：{{ text }}" and found.task["template"]["cue"] == "\n标签："
    text = written(found, tmp_path, command_of(Path("x.yaml")))
    assert Task.load(yaml_file.load(text, "x.yaml")["task"]).words == ["life", "sport"]
    japanese = [line.replace("很好", "がいい") for line in rows]
    found = proposed(saved(tmp_path / "j.csv", "text,label", japanese))
    assert found.task["template"]["cue"] == "\nLabel:"


def test_what_was_seen_is_said(tmp_path):
    rows = [line.rpartition(",")[0] for line in tickets(30)]
    rows += [rows[0], rows[1], rows[2].replace("account", "billing"), ",billing", "no team,"]
    said = "\n".join(summary(proposed(saved(tmp_path / "t.csv", "message,team", rows))))
    for words in (
        "35 rows; columns: message (texts of",
        "team (3 values)",
        "reads 'message', predicts 'team'",
        "'account' 10, 'billing' 13, 'shipping' 11",
        "2 rows that are copies",
        "2 rows that ask the same as others and have different labels",
        "2 rows that cannot be used",
        "splits: 29 rows, stratified by label: 20 train",
    ):
        assert words in said, said


@pytest.mark.parametrize("count", [8, 9, 11, 16])
def test_any_file_from_eight_rows_up_is_divided(tmp_path, count):
    rows = [f"text number {k} here,{'abcd'[k % 4] * 3}" for k in range(count - 1)] + ["the only one of its kind,rare"]
    found = proposed(saved(tmp_path / "t.csv", "text,label", rows))
    assert sum(map(len, found.splits.values())) == count and all(found.splits.values())
    told = [line for line in summary(found) if "labels with few rows" in line]
    assert told and "'rare' 1" in told[0]


def test_too_few_rows(tmp_path):
    rows = [f"text number {k} here,{'ab'[k % 2]}" for k in range(7)] + ["text number 1 here,b"]
    with pytest.raises(DataError, match=r"has 7 different rows .*copies.*8 or more are needed"):
        proposed(saved(tmp_path / "t.csv", "text,label", rows))


@pytest.mark.parametrize(
    ("name", "rows", "kind", "fields"),
    [
        (
            "q.jsonl",
            {"question": "how big is it?", "context": "Paris is big", "answer": "big"},
            "span",
            ("context", "question"),
        ),
        ("p.jsonl", {"prompt": "say what it is", "completion": "it is a thing"}, "generation", ("prompt",)),
        (
            "i.jsonl",
            {"instruction": "say it", "input": "a thing", "output": "it"},
            "generation",
            ("instruction", "input"),
        ),
        ("t.jsonl", {"tokens": ["in", "Rome"], "tags": ["O", "B-town"]}, "tagging", ("text",)),
        ("e.jsonl", {"text": "in Rome", "entities": [{"start": 3, "end": 7, "label": "town"}]}, "tagging", ("text",)),
    ],
)
def test_kinds_that_columns_name(tmp_path, name, rows, kind, fields):
    def row(k):
        first = next(key for key in rows if key not in ("context", "tokens", "text"))
        more = {"tokens": ["in", "Rome", str(k)], "tags": ["O", "B-town", "O"]} if "tokens" in rows else {}
        if "entities" in rows:
            more = {"text": f"in Rome {k}"}
        return {**rows, **(more or {first: f"{rows[first]} {k}"})}

    (tmp_path / name).write_text("".join(json.dumps(row(k)) + "\n" for k in range(12)), encoding="utf-8")
    found = proposed(tmp_path / name)
    assert found.run["task"]["type"] == kind and found.seen.roles.fields == fields
    assert yaml_file.load(written(found, tmp_path / "other", "x"), "f") == found.run
    assert ("tags" in found.task) == (kind == "tagging")


def test_two_columns_of_long_texts_are_asked_and_written(tmp_path):
    rows = [f"what is number {k} of these,it is the {WORDS[k % 8]} that came as {k}" for k in range(16)]
    found = proposed(saved(tmp_path / "t.csv", "asked,said", rows))
    assert found.task["type"] == "generation" and found.task["data"]["columns"] == {"answer": "said"}


@pytest.mark.parametrize("sign", ["", "-", " (all)", "2"])
def test_columns_that_no_template_can_name(tmp_path, sign):
    name = f"{'' if sign == '2' else 'the text'}{sign}{'nd text' if sign == '2' else ''}"
    rows = [f"text number {k} here,{'ab'[k % 2]}" for k in range(12)]
    found = proposed(saved(tmp_path / "t.csv", f"{name},label", rows))
    (ours,) = found.task["data"]["columns"]
    assert ours.isidentifier() and found.task["data"]["columns"][ours] == name


def test_a_label_that_begins_another_is_closed(tmp_path):
    rows = [f"text number {k} here,{('card', 'card_arrival')[k % 2]}" for k in range(12)]
    found = proposed(saved(tmp_path / "t.csv", "text,label", rows))
    assert found.task["template"]["answer"] == " {{ answer }}." and not found.begins


@pytest.mark.parametrize("separator", ["", ";"])
def test_a_label_in_two_unicode_forms_is_one(tmp_path, separator):
    forms = ("caf\u00e9", "cafe\u0301", "bar")
    cells = [forms[k % 3] + (f"{separator}wine" if separator and k % 2 else "") for k in range(24)]
    rows = [f"text number {k} here,{cell}" for k, cell in enumerate(cells)]
    found = proposed(saved(tmp_path / "t.csv", "text,label", rows))
    assert {**found.seen.labels} == {"bar": 8, "caf\u00e9": 16, **({"wine": 12} if separator else {})}
    task = Task.load(found.task)
    gold = [task.gold(row.values) for part in found.splits.values() for row in part]
    assert len(gold) == 24 and sum("caf\u00e9" in one for one in gold) == 16
    told = [line for line in summary(found) if "Unicode forms" in line]
    assert told == [
        "warning: labels in several Unicode forms (é as one character or as two) are read as one each: 'caf\u00e9'"
    ]


def test_a_label_in_one_unicode_form_stays_as_it_is_written(tmp_path):
    forms = ("cafe\u0301", "bar")
    rows = [f"text number {k} here,{forms[k % 2]}" for k in range(12)]
    found = proposed(saved(tmp_path / "t.csv", "text,label", rows))
    assert [*found.seen.labels] == ["bar", "cafe\u0301"] and not [line for line in summary(found) if "Unicode" in line]


BAD = [
    ("no such column", "text,label", ["x y,a", "z w,b"] * 8, ["--text", "mesage"], ["has no column 'mesage'"]),
    (
        "the same column",
        "text,label",
        ["x y,a", "z w,b"] * 8,
        ["--text", "label", "--label", "label"],
        ["text and as label"],
    ),
    (
        "a text twice",
        "text,label",
        ["x y,a", "z w,b"] * 8,
        ["--text", "text", "--text", "text"],
        ["--text text: is named twice; name each column once"],
    ),
    (
        "header is a row",
        "I was charged twice,billing",
        [f"more {k} texts,billing" for k in range(9)],
        [],
        [":1: looks like"],
    ),
    ("numbers", "some text,0", [f"more {k} texts,{k % 2}" for k in range(9)], [], ["'0' stands in its column"]),
    ("one label", "text,label", [f"text number {k},a" for k in range(9)], ["--label", "label"], ["two labels or more"]),
    (
        "unsure",
        "one,two",
        [f"text number {k},{k}" for k in range(9)],
        [],
        ["no column may be the label", "--text one --label"],
    ),
    (
        "several labels",
        "body,team,kind",
        [f"text number {k},{'ab'[k % 2]},{'xy'[k % 3 // 2]}" for k in range(12)],
        [],
        ["any of several columns may be the label", "body (texts of", "--text body --label"],
    ),
    ("type", "text,label", ["x y,a"] * 8, ["--type", "clasification"], ["did you mean 'classification'"]),
    ("empty", "text,label", [], [], ["is empty"]),
    (
        "dates are no labels",
        "body,day",
        [f"text number {k},2024-01-{10 + k % 21}" for k in range(60)],
        [],
        ["no column may be the label", "day (21 values)"],
    ),
]


@pytest.mark.parametrize(("columns", "rows", "options", "words"), [one[1:] for one in BAD], ids=[one[0] for one in BAD])
def test_what_cannot_be_used_is_one_line(tmp_path, columns, rows, options, words):
    saved(tmp_path / "t.csv", columns, rows)
    for verb in ("new", "train"):
        refused(cli(verb, "t.csv", *options, cwd=tmp_path), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_a_run_file_is_not_replaced_and_rows_are_no_run_file(tmp_path):
    saved(tmp_path / "t.csv", "message,team,number", tickets())
    done = cli("new", "t.csv", "--label", "team", cwd=tmp_path)
    assert done.returncode == 0 and "next: softprompt train t.yaml --out runs/t" in done.stdout
    before = (tmp_path / "t.yaml").read_bytes()
    refused(cli("new", "t.csv", "--label", "team", cwd=tmp_path), "t.yaml: is there already; --force replaces it")
    refused(cli("new", "t.csv", "--label", "team", "--out", "t2.csv", cwd=tmp_path), "end it in .yaml")
    assert cli("new", "t.csv", "--label", "number", "--force", cwd=tmp_path).returncode == 0
    assert (tmp_path / "t.yaml").read_bytes() != before
    refused(cli("doctor", "t.csv", cwd=tmp_path), "is a file of rows", "softprompt new t.csv")
    refused(cli("train", "t.yaml", "--label", "team", cwd=tmp_path), "is a run file, which names its columns")


def test_rows_beside_a_run_file_are_found_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    saved(tmp_path / "t.csv", "message,team,number", tickets())
    assert cli("new", "t.csv", "--label", "team", cwd=tmp_path).returncode == 0
    monkeypatch.chdir(tmp_path / "here")
    assert load_run(tmp_path / "t.yaml", []).task["data"]["source"] == str((tmp_path / "t.csv").resolve())
    saved(tmp_path / "here" / "t.csv", "message,team,number", tickets(30))
    with pytest.raises(ConfigError, match="is a file beside the run file and another one in the current folder"):
        load_run(tmp_path / "t.yaml", [])


def test_a_run_is_told_from_rows_by_its_ending(tmp_path):
    for name, held, rows in (
        ("a.json", {"task": "x"}, False),
        ("b.json", [{"text": "x"}], True),
        ("c.yaml", {}, False),
    ):
        (tmp_path / name).write_text(json.dumps(held), encoding="utf-8")
        assert holds_rows(tmp_path / name) == rows
    assert holds_rows(tmp_path / "no.jsonl") and holds_rows(tmp_path / "no.json")


def test_other_files_of_tables_are_told_what_to_be_saved_as(tmp_path):
    (tmp_path / "t.xlsx").write_bytes(b"PK\3\4")
    for verb in ("new", "train"):
        refused(cli(verb, "t.xlsx", cwd=tmp_path), "files of type '.xlsx' are not read; save the table as CSV (UTF-8)")


def test_overrides_of_a_proposal_are_checked_in_one_pass(tmp_path):
    saved(tmp_path / "t.csv", "message,team,number", tickets())
    settings = ("train.lr=x", "colour=3", "method.lenght=3", "task.metric=f11")
    wanted = ("t.csv: train.lr: ", "unknown key 'colour'", "unknown key 'lenght'", "metric 'f11' does not fit")
    refused(cli("train", "t.csv", "--label", "team", *settings, cwd=tmp_path), *wanted)


def test_from_a_table_to_answers_without_a_file_by_hand(tmp_path):
    """In cp1252, with semicolons, an empty cell and a copy, by the name of no column that we know."""
    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    rows = [line.rpartition(",")[0].replace(",", ";") + "" for line in tickets(24)]
    rows += [rows[0], ";billing", "Größe à rendre;billing"]
    saved(tmp_path / "t.csv", "Nachricht (Kunde);Team", rows, "cp1252")
    settings = ["base=base", "method.length=3", "train.max_steps=2", "--no-check"]
    done = cli("train", "t.csv", *settings, "--out", "runs/t", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("read as cp1252", "semicolons", "1 rows that cannot be used", "copies"):
        assert done.stderr.count(words) == 1, done.stderr
    assert cli("train", "t.csv", *settings, "--out", "runs/t", cwd=tmp_path).stderr.count("this run is finished") == 1
    asked = saved(tmp_path / "new.csv", "Nachricht (Kunde)", ["a joy came", "à rendre"], "cp1252")
    done = cli("predict", "runs/t", "--input", asked, cwd=tmp_path)
    assert done.returncode == 0 and "new.csv:3: is not UTF-8; read as cp1252" in done.stderr, done.stderr
    assert {json.loads(line)["label"] for line in done.stdout.splitlines()} <= {"account", "billing", "shipping"}
    done = cli("eval", "runs/t", "--data", "t.csv", cwd=tmp_path)
    assert "left out: 1 rows that cannot be used" in done.stderr and "on 26 rows" in done.stdout, done.stderr


def test_a_column_that_is_called_like_one_of_its_labels_may_be_named(tmp_path):
    path = saved(
        tmp_path / "urgent.csv",
        "message,urgent",
        [f"{word} today,{label}" for word in WORDS for label in ("urgent", "calm")],
    )
    with pytest.raises(DataError, match="looks like a row"):
        look(path)
    seen = look(path, ["message"], ["urgent"])
    assert seen.labels == {"urgent": 8, "calm": 8}


def test_tokens_are_counted_with_the_base_that_is_named(tmp_path, capsys):
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    path, base = (
        saved(tmp_path / "t.csv", "message,team", [line.rpartition(",")[0] for line in tickets()]),
        tmp_path / "base",
    )
    for named in (f"base={base}", f"base.name={base}", f"base={{name: {base}}}"):
        run_for_rows(path, [named, "method=probe"], None, None, None)
        told = capsys.readouterr().err.replace("\n", " ")
        assert re.search(rf"longest \d+ *\({re.escape(str(base))}\)", told), told
