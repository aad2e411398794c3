"""YAML as people mean it: texts stay as they are written, keys stand once, aliases do not fill the memory."""

from __future__ import annotations

import warnings

import pytest
import yaml

from softprompt import yaml_file
from softprompt.config import override, read_yaml
from softprompt.errors import ConfigError
from softprompt.renamed import with_first_keys
from softprompt.tasks import Task
from softprompt.training import load_run

WRITTEN = (
    *(
        "no",
        "yes",
        "on",
        "off",
        "n",
        "y",
        "No",
        "True",
        "TRUE",
        "12:30",
        "1:2:3",
        "010",
        "1_000",
        "0x1F",
        "0b11",
        "1e3",
    ),
    *("1E-3", ".5", "1.", "1.10", "+1", "2024-01-02", ".inf", ".nan", "0o7"),
)
TASK = "name: t\ntemplate: {input: '{{ text }}'}\n"


@pytest.mark.parametrize("word", WRITTEN)
def test_a_text_stays_as_it_is_written(tmp_path, word):
    path = tmp_path / "task.yaml"
    shots = f"demonstrations: {{k: 1, rows: [{{text: {word}, label: other}}]}}\n"
    path.write_text(f"{TASK}verbalizer: {{{word}: [{word}, two], other: x}}\n{shots}", encoding="utf-8")
    spec = Task.load(path).spec
    assert spec.verbalizer == {word: [word, "two"], "other": ["x"]}
    assert spec.demonstrations.rows[0]["text"] == word
    path.write_text(f"{TASK}verbalizer: [{word}, other]\n", encoding="utf-8")
    assert list(Task.load(path).spec.verbalizer) == [word, "other"]
    assert override({}, [f"task.verbalizer={{a: {word}}}"])["task"]["verbalizer"] == {"a": word}
    assert override({}, [f"task.template.cue={word}"])["task"]["template"]["cue"] == word


def test_what_is_a_number_or_truth_in_any_case_is_one():
    found = yaml_file.load("verbalizer: [true, 1, -2, 1.5]\ndemonstrations: {rows: [{answer: 1}]}", "f")
    assert found == {"verbalizer": [True, 1, -2, 1.5], "demonstrations": {"rows": [{"answer": 1}]}}


def test_settings_are_numbers_and_truths_as_ever():
    found = yaml_file.load("{lr: 1e-3, a: 1E5, b: .5, c: no, d: 1_000, e: 0x1F, f: ~, g: on, h: 12:30, i: 010}", "f")
    numbers = {"lr": 1e-3, "a": 1e5, "b": 0.5, "d": 1000, "e": 31}
    assert found == numbers | {"c": False, "f": None, "g": True, "h": "12:30", "i": "010"}
    given = override({}, ["train.lr=1e-3", "train.gradient_checkpointing=yes"])
    assert given["train"] == {"lr": 1e-3, "gradient_checkpointing": True}


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: 1\nb: 2\na: 3", "f:3: key 'a' stands twice (first on line 1)"),
        ("task:\n  verbalizer:\n    1: a\n    '1': b", "f:4: key '1' stands twice (first on line 3)"),
        ("verbalizer: {true: a, 'true': b}", "key 'true' stands twice"),
        ("verbalizer:\n  a: ~", "f:2: verbalizer holds ~, which YAML reads as nothing; put it in quotes"),
        ("verbalizer: [null, b]", "verbalizer holds null"),
        ("a: &a [*a]", "f:1: the alias holds itself"),
        ("a: !!binary aGk=", "is not read; write the value plainly"),
        ("a: !!python/object/apply:os.system [x]", "is not read; write the value plainly"),
        ("a: !!int x", "'x' is no int; put it in quotes"),
        ("a: {{ text }}", "f:1: a key is an object; put it in quotes"),
        ("<<: 1", "<< needs a mapping, got 1"),
        ("a: " + "9" * 5000, "is no int"),
        ("[" * 3000, "nested too deeply"),
        ("a: b: c", "f:1: not valid YAML"),
        ("a: \x01", "not valid YAML"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(text, message):
    with pytest.raises(ConfigError) as caught:
        yaml_file.load(text, "f")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_aliases_do_not_fill_the_memory():
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    with pytest.raises(ConfigError, match="unfold into more than"):
        yaml_file.load("\n".join(lines), "f")
    assert yaml_file.load("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}", "f")["y"] == {"a": 1, "b": 3}


def test_a_run_files_keys_and_overrides_stand_once(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "task: movie-reviews\nmethod: soft\ntrain: {lr: 0.01}\nseed: 0\ntrain: {lr: 0.5}\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=r"run.yaml:5: key 'train' stands twice \(first on line 3\)"):
        load_run(path, [])
    path.write_text("task: movie-reviews\nmethod: soft\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"train.lr is given twice"):
        load_run(path, ["train.lr=1", "train.lr=2"])
    with pytest.raises(ConfigError, match=r"method=prefix': would drop method.length, .* give method first"):
        load_run(path, ["method.length=5", "method=prefix"])
    assert override({}, ["method=prefix", "method.length=5"]) == {"method": {"name": "prefix", "length": 5}}
    with pytest.raises(ConfigError, match=r"a=\{x: 1, x: 2\}': key 'x' stands twice; keep one"):
        load_run(path, ["a={x: 1, x: 2}"])
    assert override({"verbalizer": {0: "a", 1: "b"}}, ["verbalizer.0=no"])["verbalizer"] == {0: "no", 1: "b"}


def test_what_we_write_is_what_we_read_and_what_others_read(tmp_path):
    data = {
        "a": "1e-3",
        "lr": 1e-3,
        "f": None,
        "t": True,
        "verbalizer": {word: [word, "~", "null"] for word in WRITTEN},
    }
    (tmp_path / "f.yaml").write_text(yaml_file.dump(data), encoding="utf-8")
    assert read_yaml(tmp_path / "f.yaml") == data == yaml.safe_load(yaml_file.dump(data))


@pytest.mark.parametrize(
    "labels", [["\u00e9", "e\u0301"], ["a", "a"], {"true": "x", True: "y"}, [None, "a"], [["a"], "b"]]
)
def test_labels_of_a_verbalizer_are_texts_and_stand_once(labels):
    with pytest.raises(ConfigError, match=r"stands twice|expected text, put it in quotes"):
        Task.load({"name": "t", "template": {"input": "{{ text }}"}, "verbalizer": labels})


@pytest.mark.parametrize(
    "labels, value, gold",
    [
        ([True, False], True, "true"),
        ([True, False], "true", "true"),
        (["True", "False"], False, "False"),
        (["yes", "no"], True, None),
        ([0, 1], 1, "1"),
        ([0, 1], 1.0, "1"),
        ([0, 1], True, None),
        (["caf\u00e9", "x"], "cafe\u0301", "caf\u00e9"),
        (["a", "b"], ["a"], None),
        (["a", "b"], float("nan"), None),
    ],
)
def test_a_rows_label_is_found_however_it_is_typed(labels, value, gold):
    task = Task.load({"name": "t", "template": {"input": "{{ text }}"}, "verbalizer": labels})
    assert task.gold({"label": value}) == gold


@pytest.mark.parametrize(
    "key", ["demonstrations.k", "data.split.train", "data.split.seed", "max_text_tokens", "version", "data.split.dev"]
)
@pytest.mark.parametrize("value", [True, False])
def test_a_truth_is_no_number(key, value):
    data: dict = value
    for name in reversed(key.split(".")):
        data = {name: data}
    task = {"name": "t", "template": {"input": "{{ text }}"}, "verbalizer": ["a", "b"], **data}
    with pytest.raises(ConfigError, match=rf"{key}: expected a number \(got {str(value).lower()}\)"):
        Task.load(task)


def test_a_truth_where_a_word_is_expected_is_told_the_words():
    task = {"name": "t", "type": "generation", "template": {"input": "{{ text }}"}, "generation": {"eval_metric": True}}
    with pytest.raises(ConfigError, match=r"generation\.eval_metric: Input should be 'likelihood' or 'metric'"):
        Task.load(task)


def test_a_renamed_key_of_a_task_is_told_where_a_person_wrote_it_and_read_in_silence_in_an_artifact(tmp_path):
    task = {"name": "t", "type": "generation", "template": {"input": "{{ text }}"}, "generation": {"looks": "metric"}}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    with pytest.warns(FutureWarning, match="the setting looks is now called eval_metric") as told:
        assert Task.load(tmp_path / "task.yaml").evaluates_metric
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = Task.of_artifact(task, 2)
    assert kept.evaluates_metric
    assert with_first_keys(type(kept.spec), kept.spec.model_dump())["generation"]["looks"] == "metric"


def test_what_is_none_of_several_kinds_is_told_in_one_without_names_of_types():
    task = {"name": "t", "template": {"input": "{{ x }}", "inptu": 3}, "verbalizer": ["a", "b"], "data": {}}
    task["data"] = {"columns": {"text": 3}}
    with pytest.raises(ConfigError) as found:
        Task.load(task)
    assert str(found.value).removeprefix("task: ").split("; ") == [
        "data.columns.text: Input should be a valid string, or Input should be a valid list (got 3)",
        "put it in quotes",
        "unknown key 'template.inptu' (did you mean 'input'?)",
    ]


@pytest.mark.parametrize("keys", ["{1.0: x, 1: y, 2: z}", "{true: x, 1: y}", "{0: x, false: y}"])
def test_keys_that_are_one_number_are_told(keys):
    with pytest.raises(ConfigError, match=r"here:1: the keys \S+ and \S+ are one number; put them in quotes"):
        yaml_file.load(f"verbalizer: {keys}", "here")
    quoted = yaml_file.load("verbalizer: {'1.0': x, '1': y}", "here")["verbalizer"]
    assert list(quoted) == ["1.0", "1"]


@pytest.mark.parametrize(
    "kind, told", [("clasification", "did you mean 'classification'"), (None, "type is null"), (["a"], "a list")]
)
def test_a_type_that_is_none_is_told_in_plain_words(kind, told):
    with pytest.raises(ConfigError) as caught:
        Task.load({"name": "t", "template": {"input": "{{ text }}"}, "type": kind})
    assert (
        told in str(caught.value) and str(caught.value).startswith("task: type is") and "None" not in str(caught.value)
    )


def test_an_override_takes_the_place_of_a_setting_under_either_name(tmp_path):
    """A file and an override may have different names for one key; only one file with both is refused."""
    run = {
        "task": {
            "type": "generation",
            "name": "t",
            "template": {"input": "{{ text }}"},
            "generation": {"looks": "metric"},
        }
    }
    for key in ("checkpointing", "gradient_checkpointing"):
        (tmp_path / "run.yaml").write_text(yaml.safe_dump({**run, "method": "soft", "train": {key: True}}))
        for name in ("checkpointing", "gradient_checkpointing"):
            for task_key in ("looks", "eval_metric"):
                with pytest.warns(FutureWarning, match="run.yaml: task.generation.looks is now called"):
                    spec = load_run(
                        tmp_path / "run.yaml", [f"train.{name}=false", f"task.generation.{task_key}=likelihood"]
                    )
                assert spec.train.gradient_checkpointing is False
                assert spec.task["generation"] == {"eval_metric": "likelihood"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_run(tmp_path / "run.yaml", [], ours=True).task["generation"] == {"eval_metric": "metric"}
