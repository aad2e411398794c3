"""`--json`: every verb gives one document, and on stdout nothing stands beside it."""

from __future__ import annotations

import importlib
import json
import pkgutil

import pytest
from test_cli import cli, refused, work  # noqa: F401 - a fixture
from typer.main import get_command

import softprompt.cli
from softprompt.cli.app import _at_home, _with_values, app
from softprompt.cli.console import out


def verbs(command, name=""):
    """All commands that do something, by their names."""
    if not hasattr(command, "commands"):
        return {name: command}
    return {
        full: found
        for inner, each in command.commands.items()
        for full, found in verbs(each, f"{name} {inner}".strip()).items()
    }


def test_every_verb_has_the_option():
    for module in pkgutil.iter_modules(softprompt.cli.__path__):
        importlib.import_module(f"softprompt.cli.{module.name}")
    found = verbs(get_command(app))
    assert {"train", "eval", "predict", "doctor", "bench compare", "data get"} <= found.keys()
    lacking = [name for name, command in found.items() if not any("--json" in one.opts for one in command.params)]
    assert not lacking


@pytest.mark.parametrize(
    "given, read",
    [
        (["eval", "run", "--json"], ["eval", "run", "--json=-"]),
        (["eval", "--json", "run"], ["eval", "--json=-", "run"]),
        (["eval", "--json", "--split", "dev"], ["eval", "--json=-", "--split", "dev"]),
        (["eval", "run", "--json", "a.JSON"], ["eval", "run", "--json", "a.JSON"]),
        (["eval", "run", "--json", "/dev/stdout"], ["eval", "run", "--json", "/dev/stdout"]),
        (["eval", "run", "--json=score"], ["eval", "run", "--json=score"]),
        (["eval", "--", "--json"], ["eval", "--", "--json"]),
    ],
)
def test_the_option_stands_alone_or_before_a_file(given, read):
    assert list(_with_values(given)) == read


@pytest.mark.parametrize("option", ["--json", "--report"])
def test_a_file_with_another_ending_is_refused_by_name(option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(
        cli("eval", "run", option, "out.txt", cwd=tmp_path),
        f"{option} out.txt: no such file to read; a file to write ends in",
    )
    (tmp_path / "out.txt").touch()  # then it is what the verb reads
    assert list(_with_values(["ask", option, "out.txt"])) == ["ask", f"{option}=-", "out.txt"]
    assert list(_with_values(["base", option, "m-1.5"])) == ["base", f"{option}=-", "m-1.5"]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("~", "/home/anna"),
        ("~/x", "/home/anna/x"),
        ("--out=~/x y", "/home/anna/x y"),
        ("a~/x", None),
        ("~anna", None),
        ("key=~/x", None),
        ("--label=a~/b", None),
        ("--", None),
    ],
)
def test_a_quoted_home_folder_is_that_folder(given, read, monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    option = "--out=" if given.startswith("--out") else ""
    assert _at_home(given) == (given if read is None else option + read)


def test_nothing_stands_beside_the_document(work):  # noqa: F811
    def document(*args):
        done = cli(*args, "--json", cwd=work)
        assert done.returncode == 0, done.stderr
        assert not out.quiet
        return json.loads(done.stdout)

    trained = document("train", "run.yaml", "--out", "first")
    assert set(trained["metrics"]) == {"dev", "test"} and trained["artifact"] == "first/artifact"
    assert document("eval", "first") == trained["metrics"]["test"]
    (work / "two.jsonl").write_text('{"text": "joy"}\n{"text": "rain"}\n')
    assert [row["text"] for row in document("predict", "first", "--input", "two.jsonl")] == ["joy", "rain"]
    assert document("inspect", "first")["manifest"] == document("inspect", "first", "--manifest")
    assert {each["name"] for each in document("methods")} >= {"soft", "infix"}
    assert document("methods", "infix")["settings"]["method.length"]["default"]
    assert all(found["level"] != "error" for found in document("doctor", "first", "--rows", 2))
    assert {"name", "cached"} <= document("base", "list")[0].keys()
    assert {"name", "citation"} <= document("data", "list")[0].keys()


def test_an_error_leaves_stdout_empty(work):  # noqa: F811
    done = cli("eval", "nowhere", "--json", cwd=work)
    refused(done, "nowhere")
    assert done.stdout == "" and not out.quiet
    refused(cli("methods", "--json", "run.yaml/x.json", cwd=work), "cannot be written")
    refused(cli("sweep", "run.yaml", "seed=0", "--json=run.yaml", cwd=work), "would replace a file that is read")


def test_a_file_gets_the_same_document_and_the_terminal_the_table(work):  # noqa: F811
    done = cli("methods", "--json", "methods.json", cwd=work)
    assert "infix" in done.stdout
    assert json.loads((work / "methods.json").read_text()) == json.loads(cli("methods", "--json", cwd=work).stdout)


def test_completion_knows_the_verbs(work, monkeypatch):  # noqa: F811
    monkeypatch.setenv("_SOFTPROMPT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "softprompt ev")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert cli(cwd=work).stdout.split() == ["eval"]
