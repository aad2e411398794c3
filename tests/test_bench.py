"""The benchmark's two sides on a tiny base: equal losses where they compute the same, and the verb from outside."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from helpers import tiny_rows
from models import tiny_model, tiny_tokenizer
from softprompt.benchmarks import ours, peft_side, speed
from softprompt.benchmarks.cases import CASES, NAMES

CASE = {case.name: case for case in CASES}


def rows(count: int) -> list[dict[str, str]]:
    """Rows of the benchmark's form; nothing is fetched."""
    found = [row.values for row in tiny_rows(count)["train"]]
    return [{"text": row["text"], "label": {"good": "positive", "bad": "negative"}[row["label"]]} for row in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("bench") / "base"
    tiny_model("llama").save_pretrained(where)
    tiny_tokenizer().save_pretrained(where)
    return str(where)


@pytest.mark.parametrize("name", CASE)
def test_both_sides_take_steps(name, folder):
    case = replace(CASE[name], batch=6)
    request = {"base": folder, "rows": rows(3 * case.batch), **case.as_dict()}
    step, facts = ours.set_up(request)
    side = ours if case.peer_method == "ours" else peft_side
    peer_step, peer_facts = side.set_up({**request, "upper": False})
    losses = [(step(), peer_step()) for _ in range(3)]
    assert all(0 < loss < 20 for pair in losses for loss in pair)
    assert len({pair[0] for pair in losses}) == 3  # other rows, moved parameters
    assert facts["text_tokens"] > 0
    if case.same_loss:
        assert torch.allclose(*torch.tensor(losses).T, rtol=0, atol=speed.LOSS_TOLERANCE["cpu"]), losses
        assert facts["parameters"] == peer_facts["parameters"]
    if case.upper:
        assert facts["parameters"] * 3 == peer_facts["parameters"]


def test_the_verb(folder, tmp_path, monkeypatch):
    """Real processes: one case against PEFT, one against ourselves."""
    from test_cli import cli, refused

    monkeypatch.setattr(speed, "rows_for", lambda tokens, count: rows(count))
    done = cli(
        *("bench", "speed", "--base", folder, "--steps", 1, "--only", "lora", "--only", "prefix-upper"),
        *("--json", "speed.json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = {row["name"]: row for row in json.loads((tmp_path / "speed.json").read_text())["rows"]}
    assert list(found) == ["prefix-upper", "lora"]  # in the order of the cases
    assert found["lora"]["losses_equal"] is True and found["lora"]["prompt_length"] is None
    assert found["lora"]["our_parameters"] == found["lora"]["peer_parameters"]
    assert found["prefix-upper"]["losses_equal"] is None and found["prefix-upper"]["peer"] == "ours, all layers, P=20"
    for row in found.values():
        assert row["speedup"] > 0 and row["memory_ratio"] > 0
        assert row["name"] in done.stdout
    refused(cli("bench", "speed", "--only", "lra", cwd=tmp_path), "did you mean 'lora'")
    assert len(set(NAMES)) == len(NAMES)
