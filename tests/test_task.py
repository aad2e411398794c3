"""Task files, labels and scores; what is wrong is said in one line with what to do."""

from __future__ import annotations

import json
import re

import pytest
import torch
from helpers import bound_form
from models import tiny_tokenizer

from softprompt import registry
from softprompt.data import Row
from softprompt.errors import ConfigError, DataError
from softprompt.tasks import Task, ready_tasks
from softprompt.yaml_file import dump

TASK = {
    "name": "reviews",
    "template": {"input": "Review: {{ text }}", "cue": "\nSentiment:"},
    "verbalizer": {"positive": ["good", "very fine"], "negative": "bad"},
}


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_ready_tasks_load():
    assert set(ready_tasks()) >= {"movie-reviews", "tweets", "product-reviews", "news-sentences"}
    for name in ready_tasks():
        assert Task.load(name).name == name


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"verbaliser": {}}, "did you mean 'verbalizer'"),
        ({"verbalizer": {"one": "x"}}, "at least two labels"),
        ({"verbalizer": {"a": "x", "b": "x"}}, "stands for both"),
        ({"verbalizer": {"a": "", "b": "x"}}, "empty word"),
        ({"type": "clasification"}, "did you mean 'classification'"),
        ({"version": 2}, "version"),
        ({"metric": "f1"}, "macro_f1"),
        ({"data": {"sorce": "x"}}, "did you mean 'source'"),
    ],
)
def test_bad_task_files(changes, message):
    with pytest.raises(ConfigError) as caught:
        Task.load({**TASK, **changes})
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_several_problems_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        Task.load({**TASK, "colour": 1, "scoring": {"normalise": "x"}})
    assert "'colour'" in str(caught.value) and "did you mean 'normalize'" in str(caught.value)


def test_unknown_task_name():
    with pytest.raises(ConfigError, match="did you mean 'movie-reviews'"):
        Task.load("movie-review")


def test_bad_rows_are_told_with_their_lines(tmp_path):
    rows = [{"text": "a", "label": "positive"}, {"text": "b", "label": "neutral"}, {"txt": "c", "label": "negative"}]
    write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError) as caught:
        Task.load(TASK).read(str(tmp_path / "rows.jsonl"))
    assert len(caught.value.problems) == 2
    assert "rows.jsonl:2" in caught.value.problems[0] and "'neutral'" in caught.value.problems[0]
    assert "rows.jsonl:3" in caught.value.problems[1] and "did you mean 'txt'" in caught.value.problems[1]


def test_held_out_text_in_training_is_refused(tmp_path):
    rows = [{"text": f"row {i}", "label": ("positive", "negative")[i % 2]} for i in range(20)]
    write_rows(tmp_path / "train.jsonl", rows)
    write_rows(tmp_path / "test.jsonl", rows[:1])
    task = Task.load({**TASK, "data": {"train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")}})
    with pytest.raises(DataError, match="held out"):
        task.load_data()


def test_labels_that_yaml_1_1_would_read_as_other_types(tmp_path):
    (tmp_path / "task.yaml").write_text(
        "name: t\ntemplate: {input: '{{ text }}'}\nverbalizer: {yes: good, no: bad}\n", encoding="utf-8"
    )
    task = Task.load(tmp_path / "task.yaml")
    assert list(task.spec.verbalizer) == ["yes", "no"]
    assert task.check_row({"text": "x", "label": "yes"}) is None
    assert "label is true" in task.check_row({"text": "x", "label": True})  # true is not the word yes
    assert Task.load({**TASK, "verbalizer": {0: "bad", 1: "good"}}).check_row({"text": "x", "label": 1}) is None


def test_a_run_file_stands_for_the_task_in_it(tmp_path):
    run = {"base": "smollm2", "task": {**TASK, "data": {"train": "rows.jsonl"}}, "method": "infix"}
    (tmp_path / "run.yaml").write_text(dump(run), encoding="utf-8")
    (tmp_path / "named.yaml").write_text(dump({**run, "task": "movie-reviews"}), encoding="utf-8")
    (tmp_path / "bare.yaml").write_text("task:\nmethod: infix\n", encoding="utf-8")
    (tmp_path / "odd.yaml").write_text(dump({**run, "task": {**TASK, "colour": 1}}), encoding="utf-8")
    task = Task.load(tmp_path / "run.yaml")
    assert task.spec == Task.load(run["task"]).spec and task.folder == tmp_path
    for name, words in {
        "named": "is a run file on the task 'movie-reviews'; name that task here",
        "bare": "is a run file without a task",
        "odd": "task: unknown key 'colour'",
    }.items():
        with pytest.raises(ConfigError, match=rf"^{re.escape(str(tmp_path / name))}\.yaml: {words}"):
            Task.load(tmp_path / f"{name}.yaml")


def test_label_scores_sum_words_and_divide_by_tokens():
    task = Task.load(TASK)
    words, gold = task.candidates({"label": "positive"})
    assert words == ["good", "very fine", "bad"] and gold == 0
    scores = task.label_scores(torch.tensor([-1.0, -4.0, -1.5]), [1, 2, 1])
    raw = torch.stack([torch.tensor([-1.0, -2.0]).logsumexp(0), torch.tensor(-1.5)])
    assert torch.allclose(scores, raw.log_softmax(0))


def test_long_texts_are_cut_never_the_template():
    form = bound_form(Task.load(TASK), tiny_tokenizer(), room=60)
    example = form.encode({"text": "word " * 50, "label": "negative"})
    longest = max(len(ids) for ids in example.candidates)
    assert example.truncated and form.bound.cut == 1
    assert len(form.bound.prefix_ids) + len(example.text) + len(form.bound.cue) + longest == 60
    with pytest.raises(DataError, match="leave no room"):
        bound_form(Task.load(TASK), tiny_tokenizer(), room=20).encode({"text": "x", "label": "negative"})


def test_null_for_all_the_rest_survives_being_written_down():
    """In a run's own file, in an artifact, and where a run file's task is reached into from the command line."""
    for size in (None, 7, 0.5):
        spec = Task.load({**TASK, "data": {"split": {"train": size, "dev": size}}}).spec
        held = spec.model_dump(mode="json", exclude_none=True)
        again = Task.load(held).spec
        assert (again.data.split.train, again.data.split.dev) == (size, size) and again == spec
    assert "test" not in held["data"]["split"]


def test_the_answer_is_no_field_that_the_template_reads(tmp_path):
    write_rows(tmp_path / "rows.jsonl", [{"text": f"a{k}", "label": "positive"} for k in range(8)])
    task = Task.load({**TASK, "template": {"input": "{{ text }} ||| {{ label }}"}, "data": {"source": "rows.jsonl"}})
    task.folder = tmp_path
    with pytest.raises(ConfigError, match=r"template.input reads \{\{ label \}\}, the right answer itself"):
        task.load_data()


@pytest.mark.parametrize("key, value", [("tools", [{"name": "f"}]), ("images", ["a.png"]), ("tools", "[{}]")])
def test_what_no_conversation_is_asked_with_is_told(key, value):
    shape = {"name": "t", "type": "generation", "template": {"messages": "messages"}}
    row = {"messages": [{"role": "user", "content": "a"}], key: value}
    assert f"holds {key} beside 'messages'" in str(Task.load(shape).check_input(row))
    assert Task.load(shape, 1).check_input(row) is None
    assert Task.load(shape).check_input({**row, key: type(value)()}) is None


@pytest.mark.parametrize(
    "text, fine",
    [
        ("{% if text == 'b' %}{{ text }}{% endif %}", "b"),
        ("Review: {{ text | replace('a', '') }}", "b"),
        ("{{ text[3:] }}\n", "abcd"),
    ],
)
def test_a_row_of_which_the_template_gives_nothing_is_refused(text, fine):
    task = {**TASK, "template": {"input": text}}
    assert "renders to an empty text for this row" in str(Task.load(task).check_input({"text": "a"}))
    assert Task.load(task).check_input({"text": fine}) is None
    assert Task.load(task, 1).check_input({"text": "a"}) is None


@pytest.mark.parametrize("size", [-1, -0.5, 1.5, "80%", float("nan"), float("inf")])
def test_a_size_that_is_none_is_told_what_is_expected(size):
    with pytest.raises(ConfigError) as caught:
        Task.load({**TASK, "data": {"split": {"train": size}}})
    assert "expected rows, a fraction below 1 such as 0.8, or null" in str(caught.value)
    assert "constrained" not in str(caught.value)


def test_a_group_that_leaves_nothing_for_a_split_is_told(tmp_path):
    rows = [{"text": f"a{k}", "label": ("positive", "negative")[k % 2], "group": 1} for k in range(20)]
    write_rows(tmp_path / "rows.jsonl", rows)
    data = {"source": str(tmp_path / "rows.jsonl"), "split": {"group": "group"}}
    with pytest.raises(
        DataError, match=r"no rows are left for dev and train: rows that data.split.group keeps together"
    ):
        Task.load({**TASK, "data": data}).load_data()


def test_an_address_is_no_file():
    with pytest.raises(DataError, match=r"https://x/y\.csv: is an address; fetch the file first"):
        Task.load(TASK).read("https://x/y.csv")


def test_one_place_of_the_right_option_is_told_where_it_is_shown():
    task = {"name": "t", "type": "choice", "template": {"input": "{{ question }}\n{{ options }}"}}
    rows = [Row({"question": f"q{k}", "choices": ["x", "y"], "answer": 1}, f"r:{k}") for k in range(8)]
    told = [what for what, _ in Task.load(task).remarks({"train": rows})]
    assert told == ["option B is the right one in all 8 rows"]
    bare = {**task, "template": {"input": "{{ question }}"}}
    assert not Task.load(bare).remarks({"train": rows}) and not Task.load(task).remarks({"train": rows[:7]})
    rows[0].values["answer"] = 0
    assert not Task.load(task).remarks({"train": rows})


def test_held_out_rows_that_are_demonstrations_are_warned_of(tmp_path):
    rows = [{"text": f"a{k}", "label": ("positive", "negative")[k % 2]} for k in range(20)]
    write_rows(tmp_path / "rows.jsonl", rows)
    for shown, told in ((rows, 1), ([{"text": "other", "label": "negative"}], 0)):
        demonstrations = {"rows": shown}
        data = {"source": str(tmp_path / "rows.jsonl"), "split": {"train": 10, "dev": 5, "test": 5}}
        task = Task.load({**TASK, "data": data, "demonstrations": demonstrations})
        task.load_data()
        assert sum("10 dev and test rows are demonstrations" in line for line in task.notices) == told


def test_a_task_type_of_an_earlier_version_is_refused_in_one_line(monkeypatch):
    """A package's task that says nothing of a form would end in a traceback."""
    old = type("Old", (), {"__module__": "theirs"})
    monkeypatch.setattr(registry, "names", lambda group: ["old"])
    monkeypatch.setattr(registry, "find", lambda group, name: old)
    with pytest.raises(
        ConfigError, match=r"type 'old' \(theirs.Old\) does not say how its rows are answered; set its `form`"
    ):
        Task.load({"type": "old", "name": "x"})
