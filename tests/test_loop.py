"""The naked loop of the examples loses what the product loses, step for step, on the same rows from the same start."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from models import tiny_base, tiny_model, tiny_tokenizer

from softprompt.tasks import Task
from softprompt.training import train

LOOP = Path(__file__).parents[1] / "examples" / "loop.py"
STEPS, SIZE, ROWS = 12, 4, 24
TRAIN = {"lr": 0.02, "epochs": STEPS * SIZE // ROWS, "batch_size": SIZE, "warmup": 0.3, "min_steps": 1}


@pytest.fixture
def loop(monkeypatch):
    monkeypatch.syspath_prepend(str(LOOP.parent))
    import loop

    return loop


def product_losses(loop, method, folder):
    """What the product records of the same run: answers among the whole vocabulary, as in the loop."""
    task = Task.load(
        {
            "name": "tickets",
            "template": {
                "instruction": loop.INSTRUCTION,
                "input": "Message: {{ message }}",
                "cue": "\nTeam:",
                "answer": " {{ answer }}",
            },
            "data": {"source": str(loop.TICKETS), "columns": {"label": "team"}},
            "verbalizer": {team: team for team in loop.TEAMS},
            "scoring": {"over": "vocabulary"},
        }
    )
    rows = [dict(zip(("message", "team"), row, strict=True)) for row in tickets(loop)]
    train(tiny_base(), task, method, folder, train=TRAIN, rows={"train": rows})
    events = map(json.loads, (folder / "events.jsonl").read_text(encoding="utf-8").splitlines())
    return [event["loss"] for event in events if event["event"] == "step"]


def tickets(loop):
    with loop.TICKETS.open(encoding="utf-8") as file:
        return list(csv.reader(file))[1 : ROWS + 1]


@pytest.mark.parametrize(("kind", "name"), [("SoftPrompt", "soft"), ("Infix", "infix")])
def test_each_loss_is_the_products(loop, tmp_path, kind, name):
    tokenizer, model = tiny_tokenizer(), tiny_model("llama").eval().requires_grad_(False)
    start = tokenizer(loop.INSTRUCTION, add_special_tokens=False).input_ids[:9]
    instruction = loop.INSTRUCTION if name == "infix" else ""
    rows = [loop.make_row(tokenizer, *row, instruction) for row in tickets(loop)]
    assert {len(answer) for _, answer in rows} > {8}, "answers of several tokens, of several lengths"
    method = getattr(loop, kind)(model, start)
    ours = list(loop.train(method, rows, TRAIN["lr"], STEPS, SIZE))
    theirs = product_losses(loop, {"name": name, "length": len(start), "text": loop.INSTRUCTION}, tmp_path)
    assert len(theirs) == STEPS and min(theirs) < theirs[0] - 0.05
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=0, atol=1e-5)


def test_it_runs_by_itself(loop, tmp_path, capsys, monkeypatch):
    fewer = tmp_path / "tickets.csv"
    fewer.write_text("".join(loop.TICKETS.read_text(encoding="utf-8").splitlines(keepends=True)[:85]), encoding="utf-8")
    monkeypatch.setattr(loop, "TICKETS", fewer)
    tiny_model("llama").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    loop.main(str(tmp_path))
    printed = capsys.readouterr().out
    assert printed.count(" of 4 new tickets are right") == 2
    for name in ("SoftPrompt", "Infix"):
        losses = [float(loss) for loss in re.findall(f"^{name} .* loss (.*)$", printed, re.MULTILINE)]
        assert len(losses) == 10 and losses[-1] < losses[0]


def test_it_is_short_and_imports_nothing_of_the_project():
    text = LOOP.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert not re.search(r"^\s*(import|from) softprompt", text, re.MULTILINE)
