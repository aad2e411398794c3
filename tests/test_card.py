"""The model card's example is code that runs."""

from __future__ import annotations

import json
import re

import pytest
from helpers import tiny_rows, tiny_task
from models import tiny_base

import softprompt as sp
from softprompt.artifact import load
from softprompt.artifact.row_text import row_text
from softprompt.base import Base
from softprompt.tasks import Task
from softprompt.tasks.sample import sample_row
from softprompt.training import train

LABELS = {"verbalizer": {"good": "good", "bad": "bad"}}
CHAT = {"input": "{{ review }}", "chat": True}
KINDS = {
    "classification": {**LABELS, "template": {"input": "{{ title }}: {{ review }}", "cue": "\nIt is:"}},
    "chat": {**LABELS, "template": CHAT},
    "messages": {**LABELS, "template": {"messages": "dialogue"}},
    "a number": {**LABELS, "template": {"input": "{{ stars + 1 }} stars", "cue": ":"}},
    "choice": {"type": "choice", "template": {"input": "Q: {{ question }}", "cue": "\nA:"}},
    "letters": {
        "type": "choice",
        "scoring": {"by": "letter"},
        "template": {"input": "{{ question }}\n{{ options }}", "cue": "\nA:"},
    },
    "generation": {"type": "generation", "template": {"input": "{{ source }}", "cue": "\n:"}},
    "span": {"type": "span", "template": {"input": "{{ question }} {{ context }}", "cue": "\n:"}},
    "span in chat": {"type": "span", "template": {"input": "{{ question }} {{ context }}", "chat": True}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_of_the_card_runs_as_it_stands(kind, tmp_path, monkeypatch):
    base, task = tiny_base(), Task.load({"name": "a task", **KINDS[kind]} | {"name": "a-task"})
    artifact = train(base, task, "hard", tmp_path, rows={"train": [], "dev": []}, check=False).artifact
    (code,) = re.findall(r"## Use\n\n```python\n(.*?)```", (artifact / "README.md").read_text("utf-8"), re.S)
    asked: list[str] = []
    monkeypatch.setattr(Base, "load", lambda name: asked.append(name) or base)
    answered: list[list[sp.Prediction]] = []
    predict = sp.Runtime.predict
    monkeypatch.setattr(sp.Runtime, "predict", lambda *args: answered.append(predict(*args)))
    exec(code.replace("path/to/this/folder", artifact.as_posix()), {})
    assert asked == [base.name] and len(answered[0]) == 1
    assert set(sample_row(task)) >= task.fields


@pytest.mark.parametrize("method", ["soft", "lora", "hard"])
def test_the_card_shows_the_text_that_is_read(method, tmp_path):
    """So whoever loads it in PEFT writes the instruction where the method keeps it, and not where it takes its place."""
    task = tiny_task(
        template={"instruction": "Good or bad? ", "input": "Text: {{ text }}", "question": " Why?", "cue": "\nIt:"}
    )
    result = train(tiny_base(), task, method, tmp_path, train={"max_steps": 1}, rows=tiny_rows(), check=False)
    manifest = load(tmp_path).manifest
    text = row_text(manifest, {"text": "joy"})
    assert text == result.prepared.bound.prompter.prompt({"text": "joy"})
    assert text.startswith("Good or bad?") == (method != "soft")
    if method != "hard":
        shown = row_text(manifest, sample_row(task))
        assert json.dumps(shown, ensure_ascii=False) in (result.artifact / "README.md").read_text("utf-8")


def test_what_a_chat_template_decides_is_not_shown(tmp_path):
    task = Task.load({"name": "chat", **LABELS, "template": CHAT})
    train(tiny_base(), task, "hard", tmp_path, rows={"train": [], "dev": []}, check=False)
    assert row_text(load(tmp_path).manifest, {"review": "joy"}) is None
