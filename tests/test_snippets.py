"""All problems of a run file, its task and its method are told in one pass, each with the smallest valid snippet."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel
from test_cli import cli, refused

from softprompt import registry, yaml_file
from softprompt.config import Strict, parse
from softprompt.errors import ConfigError
from softprompt.run_reader import load_run
from softprompt.runfile import RunSpec
from softprompt.snippets import nested_model, snippet
from softprompt.tasks import Task

SPECS = [
    RunSpec,
    *(registry.find("softprompt.tasks", name).Spec for name in registry.names("softprompt.tasks")),
    *(registry.find("softprompt.methods", name).Spec for name in registry.names("softprompt.methods")),
]


def fields(model: type[BaseModel], path=()):
    for name, field in model.model_fields.items():
        yield (*path, name), field
        if (inner := nested_model(field.annotation)) is not None:
            yield from fields(inner, (*path, name))


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)
def test_every_snippet_is_yaml_that_the_model_takes(spec):
    """In it nothing else is wrong than what stands beside it and is missing."""
    shown = 0
    for path, field in fields(spec):
        text = snippet(spec, path)
        assert text is not None or not field.is_required(), path
        if text is None:
            continue
        shown += 1
        assert "\n" not in text
        data = yaml_file.load(text, "snippet")
        for name, one in spec.model_fields.items():
            if one.is_required():
                data.setdefault(name, yaml_file.load(snippet(spec, (name,)), "other")[name])
        try:
            parse(spec, data, "here")
        except ConfigError as error:
            unfit = [line for line in error.problems if "missing key" not in line and not says_what_to_do(line)]
            assert not unfit, (path, text, unfit)
    assert shown


def says_what_to_do(line: str) -> bool:
    """Whether a setting is refused for what stands beside it, as our own checks do, and not for its value."""
    return not any(words in line for words in ("Input should", "unknown key", "should match", "valid"))


BAD = """
trian: {}
task:
  name: 3x y
  data: {source: nothere.csv, split: {train: lots}}
  verbalizer: {a: x}
train: {lr: fast, epochs: 0}
method: {name: infix, lenght: 4}
"""


def test_one_pass_over_run_task_and_method(tmp_path):
    (tmp_path / "run.yaml").write_text(BAD, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_run(tmp_path / "run.yaml", [], whole=True)
    wanted = [
        "run.yaml: unknown key 'trian' (did you mean 'train'?)",
        "run.yaml: train.lr: Input should be a valid number",
        "(got 'fast'), e.g. train: {lr: 0.01}",
        "train.epochs: Input should be greater than 0 (got 0), e.g. train: {epochs: 1}",
        "task: missing key 'template': write template: {input: 'Text: {{ text }}'",
        "task: name: ",
        "(got '3x y'), e.g. name: tickets",
        "task: data.split.train: is 'lots'; expected rows",
        "method: unknown key 'lenght' (did you mean 'length'?)",
    ]
    told = "\n".join(caught.value.problems)
    assert not [words for words in wanted if words not in told], told
    done = cli("train", "run.yaml", cwd=tmp_path)
    assert refused(done, *wanted) == "error: 7 settings cannot be used; the lines above say what to write"


def test_a_key_that_is_misspelt_is_not_missing_as_well(tmp_path):
    (tmp_path / "run.yaml").write_text("base: smollm2\ntask: tweets\nmetod: infix\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_run(tmp_path / "run.yaml", [], whole=True)
    assert caught.value.problems == [f"{tmp_path / 'run.yaml'}: unknown key 'metod' (did you mean 'method'?)"]


def test_a_task_in_a_file_and_rows_that_are_not_there(tmp_path):
    task = {"name": "t", "template": {"input": "{{ text }}"}, "metric": "f11", "data": {"source": "rows.csv"}}
    (tmp_path / "task.yaml").write_text(json.dumps(task), encoding="utf-8")
    (tmp_path / "run.yaml").write_text("task: task.yaml\n", encoding="utf-8")
    done = cli("train", "run.yaml", cwd=tmp_path)
    refused(
        done,
        "missing key 'method': write method: infix",
        "metric 'f11' does not fit type 'classification'",
        "verbalizer needs at least two labels",
        "rows.csv: no such file",
    )
    del task["data"], task["metric"]
    (tmp_path / "task.yaml").write_text(json.dumps({**task, "verbalizer": ["a", "b"]}), encoding="utf-8")
    (tmp_path / "run.yaml").write_text("task: task.yaml\nmethod: infix\n", encoding="utf-8")
    line = refused(cli("train", "run.yaml", cwd=tmp_path), "write data: {source: rows.jsonl}")
    assert "task.yaml: data.source is missing" in line  # one problem is one line


def test_what_no_hand_writes_has_no_snippet():
    class Written(Strict):
        by_hand = False
        count: int

    with pytest.raises(ConfigError, match=r"^x: missing key 'count'$"):
        parse(Written, {}, "x")
    with pytest.raises(ConfigError, match=r"metric 'f11'.*; verbalizer needs") as caught:
        Task.load({"name": "t", "template": {"input": "{{ text }}"}, "metric": "f11"})
    assert len(caught.value.problems) == 2
