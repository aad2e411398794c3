"""Rows that count more than others: a row of weight 2 is the row twice, and weights of 1 change nothing."""

from dataclasses import replace

import pytest
import torch
from helpers import close, tiny_rows, tiny_task
from models import tiny_base

from softprompt.data import Row
from softprompt.methods import make_method
from softprompt.prepared import prepare
from softprompt.tasks import Task
from softprompt.training import train
from softprompt.training.results import rows_digest

OPTIONS = {
    "name": "tiny",
    "type": "choice",
    "template": {"input": "{{ question }}", "cue": "\nAnswer:"},
    "scoring": {"train": "options"},
}
SPAN = {
    "name": "tiny",
    "type": "span",
    "template": {"input": "{{ question }} {{ context }}", "cue": ""},
    "generation": {"max_new_tokens": 4},
}
TAGS = {"name": "tiny", "type": "tagging", "template": {"input": "{{ text }}"}, "tags": ["O", "A", "B"]}


def rows_of(kind):
    if kind == "choice":
        return [Row({"question": f"q{k}", "choices": ["joy", "no pain"], "answer": k % 2}, f"r{k}") for k in range(4)]
    if kind == "span":
        return [Row({"question": "who", "context": f"it was {k} or x", "answers": [str(k)]}, f"r{k}") for k in range(4)]
    if kind == "tagging":
        return [Row({"tokens": ["a", "b", str(k)], "tags": ["A", "B", "O"]}, f"r{k}") for k in range(4)]
    return tiny_rows(4)["train"]


CASES = {
    "words": ("llama", tiny_task(), "soft"),
    "head": ("bert", tiny_task(), {"name": "soft", "head": True}),
    "choice": ("llama", Task.load(OPTIONS), "infix"),
    "span": ("bert", Task.load(SPAN), {"name": "soft", "head": True}),
    "written": ("llama", Task.load(SPAN), "soft"),
    "tagging": ("bert", Task.load(TAGS), "soft"),
    "alone": ("bert", Task.load({**TAGS, "transitions": False}), "soft"),
}


def loss_and_gradients(ready, examples):
    method, form = ready.method, ready.form
    for parameter in method.parameters():
        parameter.grad = None
    total, _ = form.loss(ready.engine, examples, method.learned())
    loss = total / form.step_weight(examples)
    loss.backward()
    return loss.detach(), [parameter.grad.clone() for parameter in method.parameters()]


@pytest.mark.parametrize("case", CASES)
def test_a_row_of_weight_two_is_the_row_twice(case):
    family, task, method = CASES[case]
    kind = {"written": "span", "alone": "tagging"}.get(case, case)
    base = tiny_base(family)
    ready = prepare(base, task, make_method(method), rows={"train": rows_of(kind)}, splits=("train",), seed=0)
    rows = ready.splits["train"]
    twice, gradients = loss_and_gradients(ready, [rows[0], rows[0], *rows[1:]])
    once, others = loss_and_gradients(ready, [replace(rows[0], weight=2.0), *rows[1:]])
    close(once, twice)
    for mine, theirs in zip(others, gradients, strict=True):
        close(mine, theirs)
    plain, _ = loss_and_gradients(ready, rows)
    assert abs(plain - once) > 1e-6


def test_weights_of_one_change_nothing():
    base, rows = tiny_base("llama"), tiny_rows(16)
    weighed = {name: [replace(row, weight=1.0) for row in part] for name, part in rows.items()}
    settings = {"max_steps": 4, "batch_size": 8, "lr": 0.1}
    found = [train(base, tiny_task(), "soft", train=settings, rows=given) for given in (rows, weighed)]
    steps = [[event["loss"] for event in one.events if event["event"] == "step"] for one in found]
    assert steps[0] == steps[1] and found[0].settings == found[1].settings
    assert all(
        torch.equal(a, b) for a, b in zip(*(one.prepared.method.export().values() for one in found), strict=True)
    )
    assert all(isinstance(event["tokens"], int) for event in found[0].events if event["event"] == "step")


def test_a_weight_is_part_of_what_names_a_run():
    rows = tiny_rows(4)
    heavy = {**rows, "train": [replace(rows["train"][0], weight=3.0), *rows["train"][1:]]}
    ready = [
        prepare(tiny_base("llama"), tiny_task(), make_method("soft"), rows=one, splits=("train",), seed=0)
        for one in (rows, heavy)
    ]
    assert [row.weight for row in ready[1].splits["train"]] == [3.0, 1, 1, 1]
    assert ready[0].digest != ready[1].digest and rows_digest(ready[0], "train") != rows_digest(ready[1], "train")


def test_a_probe_weighs_its_rows():
    base, rows, dev = tiny_base("llama"), tiny_rows(8)["train"], tiny_rows(8)["dev"]
    method = {"name": "probe", "strengths": [0.1]}
    heavy = [replace(rows[0], weight=2.0), *rows[1:]]
    solved = [
        train(base, tiny_task(), method, rows={"train": given, "dev": dev}).prepared.method.export()
        for given in (heavy, [rows[0], *rows], rows)
    ]
    close(solved[0]["weight"], solved[1]["weight"], 1e-3)
    assert (solved[0]["weight"] - solved[2]["weight"]).abs().max() > 1e-3
