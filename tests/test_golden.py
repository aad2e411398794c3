"""Short runs of every method give what they gave when the golden file was written (see `golden_runs.py`)."""

from __future__ import annotations

import json

import pytest
import torch
from golden_runs import FILE, base_of, cases, machine, name_of, run
from helpers import tiny_rows, tiny_task

from softprompt.artifact import load
from softprompt.training import train

GOLDEN = json.loads(FILE.read_text())


def test_the_golden_file_holds_every_case():
    assert sorted(GOLDEN["runs"]) == sorted(name_of(*case) for case in cases())


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: name_of(*case))
def test_a_run_gives_what_it_gave(case):
    before, threads = GOLDEN["runs"][name_of(*case)], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        now = run(*case)
    finally:
        torch.set_num_threads(threads)
    if GOLDEN["machine"] == machine():
        assert now == before  # to the bit
        return
    assert now.keys() == before.keys() and now.get("refused") == before.get("refused")
    assert now.get("losses") == pytest.approx(before.get("losses"), rel=1e-3)
    for ours, theirs in zip(now["predictions"], before["predictions"], strict=True):
        assert ours.get("text") == theirs.get("text")
        assert ours.get("probabilities") == pytest.approx(theirs.get("probabilities"), abs=5e-3)


@pytest.mark.parametrize(
    ("family", "kind"), [("llama", "causal"), ("bert", "masked"), ("t5", "seq2seq"), ("encoder", "encoder")]
)
def test_a_manifest_says_which_kind_of_base_it_is_of(tmp_path, family, kind):
    settings = {"name": "prefix", "length": 2}
    train(base_of(family), tiny_task(), settings, tmp_path, train={"max_steps": 1}, rows=tiny_rows(), check=False)
    assert load(tmp_path).manifest.kind == kind
