"""Shapes that data sets come in, and rows held out by what they are."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from softprompt.data import Row, hold_out, read_rows, split
from softprompt.data.formats import unify
from softprompt.errors import ConfigError, DataError
from softprompt.tasks import Task


@pytest.mark.parametrize(
    "row, expected",
    [
        ({"prompt": "你好", "completion": "世界"}, {"answer": "世界"}),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            {"messages": [{"role": "user", "content": "a"}], "answer": "b"},
        ),
        (
            {"question": "q", "choices": {"text": ["北京", "上海"], "label": ["A", "B"]}, "answerKey": "B"},
            {"choices": ["北京", "上海"], "answer": "上海"},
        ),
        (
            {"choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "1"},
            {"choices": ["x", "y"], "answer": "x"},
        ),
        ({"translation": {"en": "dog", "zh": "狗"}}, {"en": "dog", "zh": "狗"}),
        ({"text": "plain", "label": "a"}, {}),
        ({"messages": "你好", "label": "a"}, {}),
        ({"choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": ""}, {"choices": ["x", "y"]}),
        ({"prompt": "p", "completion": "c", "answer": "kept"}, {"answer": "kept"}),
    ],
)
def test_shapes(row, expected):
    found, problem = unify(dict(row))
    assert problem is None and {**row, **expected} == found


@pytest.mark.parametrize(
    "row, message",
    [
        ({"messages": []}, "empty list"),
        ({"choices": {"text": "abc", "label": "ABC"}, "answerKey": "A"}, "lists text and label"),
        ({"choices": {"text": 5, "label": ["A"]}, "answerKey": "A"}, "lists text and label"),
        ({"choices": {"text": ["x", "y"], "label": ["A"]}, "answerKey": "B"}, "of one length"),
        (
            {"messages": [{"role": "bot", "content": "x"}]},
            "messages[0].role is 'bot'; expected system, user, assistant",
        ),
        ({"messages": [{"role": "user"}]}, "messages[0] is not"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "the answer only"),
        ({"choices": {"text": [], "label": []}, "answerKey": "A"}, "choices is empty"),
        (
            {"choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "E"},
            "answerKey 'E' is not one of the 2 choices",
        ),
    ],
)
def test_wrong_shapes(row, message):
    assert message in str(unify(row)[1])


def test_the_place_of_a_wrong_row_is_told(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"prompt": "a", "completion": "b"}\n{"messages": [{"role": "bot", "content": "x"}]}\n', encoding="utf-8"
    )
    with pytest.raises(DataError) as caught:
        read_rows(path)
    assert caught.value.problems == [f"{path}:2: messages[0].role is 'bot'; expected system, user, assistant"]


def test_squads_nested_json(tmp_path):
    asked = {"id": "1", "question": "首都是哪里？", "answers": [{"text": "北京", "answer_start": 6}]}
    nested = {
        "version": "1.1",
        "data": [{"title": "t", "paragraphs": [{"context": "中国的首都是北京。", "qas": [asked]}]}],
    }
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(nested, ensure_ascii=False), encoding="utf-8")
    task = Task.load(
        {"name": "s", "type": "span", "template": {"input": "{{ question }}{{ context }}"}, "metric": "f1_zh"}
    )
    (row,) = task.read(str(path))
    assert row.where == f"{path}:data[0].paragraphs[0].qas[0]" and task.gold(row.values) == ["北京"]
    asked["answers"][0]["answer_start"] = 2
    path.write_text(json.dumps(nested, ensure_ascii=False), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        task.read(str(path))
    assert "not at answer_start 2 of the context (found at 6)" in caught.value.problems[0]


def test_rows_held_out_by_what_they_are(tmp_path):
    rows = [{"source": f"text {i}", "target": f"texte {i}", "app": "ab"[i % 4 == 0]} for i in range(40)]
    rows.append({"source": "TEXT  0", "target": "x", "app": "a"})  # the same source as a held-out row, in other clothes
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = {
        "source": str(path),
        "columns": {"answer": "target"},
        "hold_out": {"field": "app", "values": ["b"]},
        "split": {"train": None, "dev": 5},
    }
    task = Task.load({"name": "t", "type": "generation", "data": data, "template": {"input": "{{ source }}"}})
    found = task.load_data()
    assert {name: len(part) for name, part in found.items()} == {"train": 25, "dev": 5, "test": 10}
    assert {row.values["app"] for row in found["test"]} == {"b"}
    held = {" ".join(row.values["source"].casefold().split()) for row in found["test"]}
    assert not held & {" ".join(row.values["source"].casefold().split()) for row in found["train"] + found["dev"]}
    with pytest.raises(DataError, match="no row has app in 'c'; there are 'a', 'b'"):
        hold_out([Row(row, "r") for row in rows], "app", ["c"])


def held_out_task(tmp_path, rows, **split):
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = {
        "source": str(tmp_path / "held.jsonl"),
        "hold_out": {"field": "app", "values": ["held"]},
        "split": {"train": None, "dev": 4, "test": None, **split},
    }
    return Task.load({"name": "t", "template": {"input": "{{ text }}"}, "verbalizer": ["a", "b"], "data": data})


def test_held_out_rows_are_cut_before_anything_is_left_out(tmp_path):
    rows = [{"text": f"text {i}", "label": "ab"[i % 2], "app": "other"} for i in range(30)]
    rows += [{"text": f"TEXT  {i}", "label": "ab"[(i + (i == 3)) % 2], "app": "held"} for i in range(6)]  # 3 disagrees
    rows += [{"text": f"mine {i}", "label": "ab"[i % 2], "app": "held"} for i in range(20)]
    rows += [{"text": "mine 0", "label": "a", "app": "held"}, {"text": "text 20", "label": "a", "app": "other"}]
    rows += [{"text": f"twist {i // 2}", "label": "ab"[i % 2], "app": ("held", "other")[i // 2]} for i in range(4)]
    task = held_out_task(tmp_path, rows)
    found = task.load_data()
    assert {name: len(part) for name, part in found.items()} == {"train": 20, "dev": 4, "test": 26}
    assert {row.values["app"] for row in found["test"]} == {"held"}
    texts = {name: {" ".join(row.values["text"].casefold().split()) for row in part} for name, part in found.items()}
    assert not texts["test"] & (texts["train"] | texts["dev"]) and {f"text {i}" for i in range(6)} <= texts["test"]
    assert asdict(task.left_out) == {"copies": 2, "contradicting": 2, "held_out": 6}
    assert "6 rows whose text or group is among the held-out ones" in str(task.left_out)


def test_a_number_of_held_out_rows_is_a_seeded_sample(tmp_path):
    rows = [{"text": f"text {i}", "label": "ab"[i % 4 == 0], "app": ("held", "other")[i < 30]} for i in range(70)]

    def tests(**split):
        return [
            int(row.values["text"].split()[1]) for row in held_out_task(tmp_path, rows, **split).load_data()["test"]
        ]

    found = tests(test=12)
    assert found == tests(test=12) != tests(test=12, seed=1) and set(found) != set(range(30, 42))
    assert len(found) == len(set(found)) == 12 and sum(i % 4 == 0 for i in found) == 3  # stratified
    assert len(tests(test=0.5)) == 20 and len(tests(test=None)) == 40
    training = [held_out_task(tmp_path, rows, test=size).load_data()["train"] for size in (5, None)]
    assert training[0] == training[1]  # however many of them are tested on
    with pytest.raises(DataError, match=r"ask for 41 rows \(test 41\), there are 40"):
        tests(test=41)


def test_a_group_that_is_partly_held_out_is_not_trained_on(tmp_path):
    rows = [{"text": f"text {i}", "label": "ab"[i % 2], "app": "other", "doc": i // 2} for i in range(40)]
    rows[1]["app"] = rows[2]["app"] = "held"
    task = held_out_task(tmp_path, rows, group="doc")
    found = task.load_data()
    assert {name: len(part) for name, part in found.items()} == {"train": 32, "dev": 4, "test": 2}
    assert not {0, 1} & {row.values["doc"] for row in found["train"] + found["dev"]} and task.left_out.held_out == 2


def test_groups_of_one_label_are_stratified():
    rows = [Row({"group": i // 4, "label": "ab"[i // 4 % 5 == 0]}, f"r:{i}") for i in range(400)]  # a fifth is b
    for seed in range(10):
        found = split(rows, {"train": None, "dev": 40, "test": 100}, lambda row: row.values["label"], seed, "group")
        for name, size in (("dev", 40), ("test", 100)):
            assert abs(sum(row.values["label"] == "b" for row in found[name]) - size / 5) <= 4, name
        owners = [{row.values["group"] for row in part} for part in found.values()]
        assert sum(map(len, owners)) == len(set().union(*owners)) == 100
    rows[0].values["label"] = "a"  # one group of two labels: drawn whatever they are, still whole
    found = split(rows, {"train": None, "dev": 40, "test": 100}, lambda row: row.values["label"], 0, "group")
    assert {name: len(part) for name, part in found.items()} == {"train": 260, "dev": 40, "test": 100}


def test_groups_stay_together():
    rows = [Row({"text": str(i), "group": i // 3}, f"r:{i}") for i in range(60)]
    found = split(rows, {"train": None, "dev": 10, "test": 10}, lambda row: "", 0, "group")
    owners = {name: {row.values["group"] for row in part} for name, part in found.items()}
    assert (
        not owners["train"] & owners["dev"]
        and not owners["dev"] & owners["test"]
        and not owners["train"] & owners["test"]
    )
    assert sum(len(part) for part in found.values()) == 60 and 10 <= len(found["dev"]) <= 12
    assert found == split(rows, {"train": None, "dev": 10, "test": 10}, lambda row: "", 0, "group")
    with pytest.raises(DataError, match="has no field 'nobody'"):
        split(rows, {"train": None, "dev": 5, "test": 5}, lambda row: "", 0, "nobody")


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"data": [1]}', "expected a list of objects"),
        ('{"data": [{"paragraphs": "x"}]}', "all objects"),
        ('{"data": [{"paragraphs": [{"context": "c", "qas": ["q"]}]}]}', "all objects"),
        ('{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "1"}]}]}]}', "'question' is missing"),
    ],
)
def test_what_only_looks_like_squad_is_told_in_one_line(tmp_path, content, message):
    (tmp_path / "rows.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_rows(tmp_path / "rows.json")
    assert "\n" not in str(caught.value)


def test_a_group_is_one_however_its_value_is_typed():
    rows = [Row({"group": (1 if i % 2 else "1") if i < 20 else i}, f"r:{i}") for i in range(40)]
    for seed in range(20):
        found = split(rows, {"train": None, "dev": 10, "test": 10}, lambda row: "", seed, "group")
        assert sum(any(str(row.values["group"]) == "1" for row in part) for part in found.values()) == 1


def test_files_of_their_own_keep_groups_and_refuse_hold_out(tmp_path):
    lines = [json.dumps({"text": f"t{i}", "label": "ab"[i % 2], "g": i // 5}) + "\n" for i in range(100)]
    (tmp_path / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    data = {"train": str(tmp_path / "train.jsonl"), "split": {"group": "g"}}
    task = {"name": "t", "template": {"input": "{{ text }}"}, "verbalizer": ["a", "b"], "data": data}
    found = Task.load(task).load_data()
    assert not {row.values["g"] for row in found["train"]} & {row.values["g"] for row in found["dev"]} and found["dev"]
    data["hold_out"] = {"field": "g", "values": ["1"]}
    with pytest.raises(ConfigError, match=r"data\.hold_out takes test rows from data\.source"):
        Task.load(task).load_data()
