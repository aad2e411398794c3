"""The tutorial: four commands that work as they are shown, on data that comes with the package."""

from __future__ import annotations

import csv
import json
from collections import Counter
from importlib.resources import files

from models import tiny_model, tiny_tokenizer
from test_cli import cli, refused

DATA = files("softprompt.cli").joinpath("tickets.csv")


def test_its_data_is_small_and_even():
    with DATA.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["team"] for row in rows) == dict.fromkeys(("billing", "delivery", "technical"), 40)
    assert len({row["message"] for row in rows}) == 120 and max(len(row["message"]) for row in rows) < 80


def test_four_commands_are_shown_and_leave_what_they_say(tmp_path, forks):
    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    base = tmp_path / "base"
    done = cli("tutorial", "--out", "try", "--base", base, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    verbs = [each["command"].split()[1] for each in told["commands"]]
    assert verbs == ["train", "eval", "predict", "inspect"] and told["folder"] == "try"
    result = json.loads((tmp_path / "try" / "run" / "result.json").read_text())
    assert set(result["metrics"]) == {"dev"}
    assert (tmp_path / "try" / "run" / "artifact" / "manifest.json").is_file()
    refused(cli("tutorial", "--out", "try", cwd=tmp_path), "is there already")


def test_a_command_that_fails_ends_it(tmp_path, forks):
    done = cli("tutorial", "--out", "try", "--base", "no-such-base", cwd=tmp_path)
    assert done.returncode == 2 and "1 of 4" in done.stdout and "2 of 4" not in done.stdout
    assert "$ softprompt train tickets.csv --out run" in done.stdout
    assert "`softprompt train` ended with code 2" in done.stderr
