"""Shapes that data sets come in, and rows held out by what they are."""

from __future__ import annotations

import json

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
        (  # a number among the options is no index
            {"choices": {"text": [5, 9], "label": ["A", "B"]}, "answerKey": "B"},
            {"choices": [5, 9], "answer": "9"},
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
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]},
            "messages[1] has weight 0",
        ),
        (
            {"prompt": "a", "completion": [{"role": "assistant", "content": "b", "reasoning_content": "c"}]},
            "completion[0] holds reasoning_content",
        ),
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


@pytest.mark.parametrize(
    "row, columns, expected",
    [
        ({"question": "你好", "reply": "世界"}, {"prompt": "question", "completion": "reply"}, {"answer": "世界"}),
        (
            {"stem": "q", "options": {"text": ["x", "y"], "label": ["A", "B"]}, "key": "B"},
            {"choices": "options", "answerKey": "key"},
            {"choices": ["x", "y"], "answer": "y"},
        ),
        (
            {"turns": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            {"messages": "turns"},
            {"messages": [{"role": "user", "content": "a"}], "answer": "b"},
        ),
        ({"pair": {"en": "dog", "fr": "chien"}}, {"translation": "pair"}, {"en": "dog", "fr": "chien"}),
        # a column may be what a shape makes, and make a shape in turn
        ({"translation": {"en": "dog", "fr": "chien"}}, {"answer": "fr"}, {"answer": "chien", "en": "dog"}),
        ({"translation": {"en": "dog", "fr": "chien"}}, {"prompt": "en", "completion": "fr"}, {"answer": "chien"}),
        ({"prompt": "p", "completion": "c"}, {"target": "answer"}, {"target": "c"}),
        # what is renamed over says nothing
        ({"prompt": "p", "completion": "c", "better": "d"}, {"completion": "better"}, {"answer": "d"}),
        ({"prompt": "p", "completion": "c", "better": "d"}, {"answer": "better"}, {"answer": "d", "completion": "c"}),
        ({"prompt": "p", "completion": "c"}, {"prompt": "completion", "completion": "prompt"}, {"answer": "p"}),
        # the answer never stays in the conversation
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "gold": "c"},
            {"answer": "gold", "history": "messages"},
            {
                "messages": [{"role": "user", "content": "a"}],
                "history": [{"role": "user", "content": "a"}],
                "answer": "c",
            },
        ),
        (
            {"choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "A", "other": "B"},
            {"answerKey": "other"},
            {"choices": ["x", "y"], "answer": "y"},
        ),
    ],
)
def test_columns_and_shapes(tmp_path, row, columns, expected):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (found,) = read_rows(tmp_path / "rows.jsonl", columns=columns)
    assert {name: found.values[name] for name in expected} == expected


def test_a_task_whose_columns_make_prompt_and_completion(tmp_path):
    lines = [json.dumps({"question": f"what is {i}?", "reply": f"it is {i}"}) + "\n" for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(lines) + '{"question": "why?"}\n', encoding="utf-8")
    data = {"columns": {"prompt": "question", "completion": "reply"}}
    task = Task.load({"name": "t", "type": "generation", "data": data, "template": {"input": "{{ prompt }}"}})
    with pytest.raises(DataError) as caught:
        task.read(str(tmp_path / "rows.jsonl"))
    assert caught.value.problems == [f"{tmp_path / 'rows.jsonl'}:21: missing column 'reply' (known: question)"]
    (tmp_path / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    rows = task.read(str(tmp_path / "rows.jsonl"))
    assert [task.gold(row.values) for row in rows] == [[f"it is {i}"] for i in range(20)]


SPAN = {"name": "s", "type": "span", "template": {"input": "{{ question }}{{ context }}"}}
CHOICE = {"name": "c", "type": "choice", "template": {"input": "{{ question }}"}}


@pytest.mark.parametrize(
    "task, row, message",
    [
        (CHOICE, {"choices": [], "answer": "x"}, "choices must be a list of two or more options, got 0"),
        (CHOICE, {"choices": "xy", "answer": "x"}, "choices must be a list of two or more options, got 'xy'"),
        (CHOICE, {"choices": ["x", ""], "answer": "x"}, "choices[1] is empty"),
        (
            CHOICE,
            {"choices": ["x", "y"], "answer": "z"},
            "answer 'z' is not among the 2 choices; give its text, its index from 0 or its letter",
        ),
        (
            CHOICE,
            {"choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "E"},
            "answerKey 'E' is not one of the 2 choices (A, B)",
        ),
        (CHOICE, {"choices": {"text": [], "label": []}, "answerKey": "A"}, "choices is empty"),
        (SPAN, {"answers": {"text": [], "answer_start": []}}, "leave these rows out"),
        (
            SPAN,
            {"answers": []},
            "questions without an answer (as in SQuAD 2.0) cannot be learned; leave these rows out",
        ),
        (
            SPAN,
            {"answers": {"text": ["London"], "answer_start": [0]}},
            "answer 'London' is not in the context, which must hold it to the letter",
        ),
        (
            SPAN,
            {"answers": {"text": ["big"], "answer_start": [3]}},
            "answer 'big' is not at answer_start 3 of the context (found at 9)",
        ),
        (SPAN, {"answers": {"text": ["big"], "answer_start": [-1]}}, "negative answer_start; it is found at 9"),
        (SPAN, {"answers": {"text": ["big"], "answer_start": ["x"]}}, "answer_start is a list with 'x'; expected"),
        (SPAN, {"answers": {"text": ["big"], "answer_start": 9}}, "answer_start is 9; expected"),
        (SPAN, {"answers": {"text": ["big"], "answer_start": [9, 9]}}, "there are 1 answers and 2 values"),
        (SPAN, {"answers": {"text": "big", "answer_start": [9]}}, "answers is 'big'; expected"),
        (SPAN, {"answers": {"spans": ["big"]}}, "answers has no \"text\" ('spans'); expected"),
        (SPAN, {"answers": {}}, 'answers has no "text" (it is empty); expected'),
        (SPAN, {"answers": 7}, "answers is 7; expected"),
        (
            SPAN,
            {"answers": [{"text": "big", "answer_start": 9}]},
            "answers holds an object; expected",
        ),
    ],
)
def test_bad_options_answers_and_spans_are_told_by_their_line(tmp_path, task, row, message):
    path = tmp_path / "rows.jsonl"
    common = {"question": "how?", "context": "Paris is big"}
    good = {"choices": ["x", "y"], "answer": "y", "answers": ["big"], **common}
    path.write_text("".join(json.dumps(one) + "\n" for one in (good, {**row, **common}, good)), encoding="utf-8")
    with pytest.raises(DataError, match="1 of 3 rows cannot be used") as caught:
        Task.load(task).read(str(path))
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}:2: ") and message in problem and "\n" not in problem


def test_questions_of_squad_2_without_an_answer_are_told_by_their_place(tmp_path):
    asked = [
        {"id": "1", "question": "how?", "answers": [{"text": "big", "answer_start": 9}], "is_impossible": False},
        {"id": "2", "question": "why?", "answers": [], "is_impossible": True},
    ]
    path = tmp_path / "squad.json"
    path.write_text(
        json.dumps({"data": [{"paragraphs": [{"context": "Paris is big", "qas": asked}]}]}), encoding="utf-8"
    )
    with pytest.raises(DataError) as caught:
        Task.load(SPAN).read(str(path))
    (problem,) = caught.value.problems
    assert (
        problem.startswith(f"{path}:data[0].paragraphs[0].qas[1]: answers is empty") and "leave these rows" in problem
    )


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
    rows.append({"source": "text 0", "target": "x", "app": "a"})  # the same source as a held-out row
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
    with pytest.raises(DataError, match=r"no row has a text or number in field 'ap' .did you mean 'app'"):
        hold_out([Row(row, "r") for row in rows], "ap", ["None"])
    years = [Row({"year": value}, "r") for value in (2019.0, 2020.0, None, "2019", True)]
    for named, count in ((["2019"], 2), (["2019.0"], 1), (["true"], 1)):
        assert len(hold_out(years, "year", named)[0]) == count


def test_columns_and_held_out_values_that_are_misspelt_are_warned_of(tmp_path):
    rows = [{"text": f"t{i}", "label": "ab"[i % 2], "app": "xy"[i % 3 == 0]} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = {
        "source": str(tmp_path / "rows.jsonl"),
        "columns": {"txet": "text", "label": "label", "app": "app"},
        "hold_out": {"field": "app", "values": ["y", "z"]},
    }
    task = Task.load({"name": "t", "template": {"input": "{{ text }}"}, "verbalizer": ["a", "b"], "data": data})
    task.load_data()
    told = [line for line in task.notices if line.startswith("warning")]
    assert told == [
        "warning: data.columns names 'txet', which nothing reads (app, label, text are)",
        "warning: data.hold_out: no row has app 'z'",
    ]


def test_too_few_rows_say_what_was_left_out(tmp_path):
    rows = [{"text": f"t{i // 2}", "label": "ab"[i // 2 % 2]} for i in range(24)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = {"source": str(tmp_path / "rows.jsonl"), "split": {"train": 12, "dev": 8}}
    task = Task.load({"name": "t", "template": {"input": "{{ text }}"}, "verbalizer": ["a", "b"], "data": data})
    with pytest.raises(DataError, match=r"there are 12 different ones; .* \(left out: 12 rows that are copies"):
        task.load_data()


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
    rows += [{"text": f"text {i}", "label": "ab"[(i + (i == 3)) % 2], "app": "held"} for i in range(6)]  # 3 disagrees
    rows += [{"text": f"mine {i}", "label": "ab"[i % 2], "app": "held"} for i in range(20)]
    rows += [{"text": "mine 0", "label": "a", "app": "held"}, {"text": "text 20", "label": "a", "app": "other"}]
    rows += [{"text": f"twist {i // 2}", "label": "ab"[i % 2], "app": ("held", "other")[i // 2]} for i in range(4)]
    task = held_out_task(tmp_path, rows)
    found = task.load_data()
    assert {name: len(part) for name, part in found.items()} == {"train": 20, "dev": 4, "test": 26}
    assert {row.values["app"] for row in found["test"]} == {"held"}
    texts = {name: {" ".join(row.values["text"].casefold().split()) for row in part} for name, part in found.items()}
    assert not texts["test"] & (texts["train"] | texts["dev"]) and {f"text {i}" for i in range(6)} <= texts["test"]
    left_out = task.left_out
    assert (left_out.copies, left_out.contradicting, left_out.held_out) == (2, 4, 6)
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
    with pytest.raises(DataError, match=r"asks for 41 rows, data.hold_out keeps 40; ask for fewer, or null"):
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
        ('{"data": [{"paragraphs": "x"}]}', "data[0]: has no list of paragraphs"),
        ('{"data": [{"paragraphs": [{"context": "c", "qas": "x"}]}]}', "data[0].paragraphs[0]: has no list of qas"),
        ('{"data": [{"paragraphs": [{"context": "c", "qas": ["q"]}]}]}', "qas[0]: question or context is missing"),
        (
            '{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "1"}]}]}]}',
            "qas[0]: question or context is missing",
        ),
        (
            '{"data": [{"paragraphs": [{"context": "c", "qas": [{"question": "q", "answers": ["a"]}]}]}]}',
            'qas[0]: answers is no list of {"text": …, "answer_start": …}',
        ),
    ],
)
def test_what_only_looks_like_squad_is_told_by_its_place(tmp_path, content, message):
    (tmp_path / "rows.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path / "rows.json")
    told = "\n".join(caught.value.problems) or str(caught.value)
    assert message in told and "\n" not in told


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


@pytest.mark.parametrize(
    "extra",
    [
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": []},
        {"choices": {"text": []}, "answerKey": "A"},
        {"prompt": [], "completion": "x"},
    ],
)
def test_a_shape_that_the_task_does_not_read_is_the_rows_own_affair(tmp_path, extra):
    task = Task.load({"name": "t", "template": {"input": "{{ text }}"}, "verbalizer": ["a", "b"]})
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "x", "label": "a", "translation": {"en": "dog"}, **extra}) + "\n")
    (row,) = task.read(str(path))
    assert row.values["en"] == "dog" and {**row.values, **extra} == row.values
    with pytest.raises(DataError):
        read_rows(path)


def test_a_conversation_to_be_asked_may_end_in_an_answer_that_could_not_be_learned(tmp_path):
    task = Task.load({"name": "t", "type": "generation", "template": {"messages": "messages"}})
    last = {"role": "assistant", "content": "b", "reasoning_content": "c"}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "a"}, last]}) + "\n")
    assert len(read_rows(path, task.check_input)) == 1
    with pytest.raises(DataError) as caught:
        task.read(str(path))
    assert "messages[1] holds reasoning_content" in caught.value.problems[0]
