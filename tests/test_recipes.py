"""The commands of each recipe run: on tiny bases and few rows here, as they stand and with their results in the full run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from models import tiny_model, tiny_tokenizer
from test_cli import cli
from transformers import BertForMaskedLM

from softprompt.benchmarks.commands import commands_of
from softprompt.data import CATALOGUE

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "examples" / "recipes"
NAMES = sorted(path.parent.name for path in RECIPES.glob("*/README.md"))
SPLIT = ["task.data.split.train=8", "task.data.split.dev=4", "task.data.split.test=4"]
FEW = ["train.epochs=1", "train.max_steps=2", "train.min_steps=1", "train.batch_size=4"]
SUITE = ["sizes=[8]", "dev=4", "test=8", "seeds=[0]"]
LESS = {
    "own-csv": ["train.max_steps=2", "train.min_steps=1"],
    "label-curve": SUITE,
    "ray-cluster": SUITE,
    "peft-and-back": FEW,
    "spans": [*SPLIT, *FEW, "--no-check"],  # a random encoder hardly hears of a prompt
    "int8-base": [*SPLIT, *FEW, "base.quantization=null"],
    "translation": [*SPLIT, *FEW, "task.generation.max_new_tokens=4"],
}
"""What the commands of a recipe are given beside their own words; of those that are not named, fewer rows and steps."""


def saved(model, tokenizer, folder):
    """A random model with room for long texts, as the package keeps a bundled base."""
    sizes = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": 2048, "pad_token_id": 2, "bos_token_id": 0}
    wide = type(model)(type(model.config)(**sizes, eos_token_id=1))
    (wide.base_model if isinstance(wide, BertForMaskedLM) else wide).save_pretrained(folder)
    tokenizer.model_max_length = 2048
    tokenizer.save_pretrained(folder)
    (folder / "source.json").write_text("{}", encoding="utf-8")


def few_rows(name):
    """Rows of a catalogue source, of our own."""
    for at in range(24):
        label = ("positive", "negative")[at % 2]
        yield {
            "movie-reviews": {"id": str(at), "text": f"{label} film {at}", "label": label, "score": 1.0},
            "ui-strings-fr": {
                "id": str(at),
                "source": f"Row {at}",
                "target": f"Rang {at}",
                "app": ("auth", "site")[at % 2],
            },
            "definitions": {"word": f"w{at}", "choices": ["a", "b", "c", f"d{at}"], "answer": at % 4},
            "address-tags": {"address": str(at), "tokens": [str(at), "Oak"], "tags": ["AddressNumber", "StreetName"]},
            "addresses": {
                "id": str(at),
                "address": str(at),
                "question": "What is the house number?",
                "context": f"{at} Oak",
                "answers": {"text": [str(at)], "answer_start": [0]},
            },
        }[name]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A cache in which the bundled bases are tiny and the data have few rows."""
    cache = tmp_path_factory.mktemp("cache")
    saved(tiny_model("llama"), tiny_tokenizer(), cache / "bases" / "smollm2")
    saved(tiny_model("bert"), tiny_tokenizer(frame="masked"), cache / "bases" / "minilm")
    (cache / "data").mkdir()
    for name in ("movie-reviews", "ui-strings-fr", "definitions", "address-tags", "addresses"):
        lines = [json.dumps(row) + "\n" for row in few_rows(name)]
        (cache / "data" / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return cache


@pytest.fixture
def folder(kept, tmp_path, monkeypatch):
    """A folder with the recipes, whose CSV files are short."""
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(kept))
    monkeypatch.delenv("SOFTPROMPT_WORDNET", raising=False)
    for path in (kept / "data").glob("*.jsonl"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found = dataclasses.replace(CATALOGUE[path.stem], jsonl_sha256=digest, own=None)
        monkeypatch.setitem(CATALOGUE, path.stem, found)
    shutil.copytree(RECIPES, tmp_path / "examples" / "recipes")
    for path in (tmp_path / "examples").rglob("*.csv"):
        path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:41]), encoding="utf-8")
    return tmp_path


def smaller(name, command, kept):
    """A command's words with less to do, as one of this process; a script's path and its arguments."""
    words = shlex.split(command.replace("~/.cache/softprompt", str(kept)))
    if words[0] == "python":
        return words
    if words[0] == "torchrun":  # here in one process: `test_parallel.py` has two
        words = words[words.index("softprompt") :]
    if words[1] in ("train", "distil"):
        words = [word for word in words if not word.startswith("task.data.split.")] + LESS.get(name, [*SPLIT, *FEW])
    elif words[1] == "bench":
        words = [word for word in words if word not in ("--workers", "2")] + LESS[name]
        words[words.index("--executor") + 1] = "here"
    return words


@pytest.mark.parametrize("name", NAMES)
def test_its_commands_run_on_few_rows(name, kept, folder, monkeypatch):
    commands = commands_of((RECIPES / name / "README.md").read_text(encoding="utf-8"))
    assert commands
    for command in commands:
        words = smaller(name, command, kept)
        if words[0] == "python":
            monkeypatch.chdir(folder)
            monkeypatch.setattr(sys, "argv", [*words[1:], "1"])
            runpy.run_path(words[1], run_name="__main__")
        else:
            done = cli(*words[1:], cwd=folder)
            assert done.returncode == 0, (command, done.stderr)


@pytest.mark.full
@pytest.mark.real
@pytest.mark.parametrize("name", NAMES)
def test_its_result_lies_in_the_recorded_interval(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    import record

    expected = json.loads((RECIPES / name / "expected.json").read_text(encoding="utf-8"))
    measured = record.run(name, tmp_path)
    assert (measured["metric"], measured["rows"]) == (expected["metric"], expected["rows"])
    assert expected["low"] <= measured["estimate"] <= expected["high"]


@pytest.mark.parametrize("name", NAMES)
def test_its_record_is_of_its_own_command(name):
    page = (RECIPES / name / "README.md").read_text(encoding="utf-8")
    record = json.loads((RECIPES / name / "expected.json").read_text(encoding="utf-8"))
    assert record["command"] in commands_of(page)
    assert 0 <= record["low"] <= record["estimate"] <= record["high"] <= 1 and record["rows"] > 0
    assert set(re.findall(r"figure recipes/([\w-]+)/", page)) == {name}


@pytest.mark.parametrize("name", [*NAMES, ""])
def test_its_page_keeps_to_the_limits(name):
    """Figures are those of the record, sentences are short."""
    import prose

    from softprompt.benchmarks.figures.check import complaints
    from softprompt.benchmarks.figures.keys import Keys

    page = RECIPES / name / "README.md"
    assert not list(complaints(page, Keys(ROOT)))
    assert not prose.read(page).faults()


def test_the_list_names_all_recipes():
    listed = re.findall(r"^\| \[([\w-]+)\]\(\1/README.md\)", (RECIPES / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == NAMES


def test_run_files_are_whole():
    for path in RECIPES.glob("*/run.yaml"):
        assert {"base", "task", "method", "seed"} <= set(yaml.safe_load(path.read_text(encoding="utf-8")))
