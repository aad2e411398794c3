"""`softprompt examples`: what is listed, what is copied, and that nothing of the user's is replaced."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import cli, refused

from softprompt.cli.examples import examples_folder, read_examples

ROOT = Path(__file__).parents[1]


@pytest.fixture
def made(tmp_path):
    """A folder of examples of all shapes."""
    files = {
        "first.yaml": "# softprompt train first.yaml\n# The first one. It is short.\nbase: minilm\n",
        "bare.yaml": "# softprompt train bare.yaml\nbase: minilm\n",
        "show.py": '"""What it shows.\n\nMore."""\nimport show_parts\n',
        "show_parts.py": '"""Parts."""\n',
        "other_parts.py": '"""By itself."""\n',
        "rows.jsonl": "{}\n",
        "words.yaml": "# Words in a folder.\n",
        "words/rows.csv": "a,b\n",
        "recipes/shared.csv": "a,b\n",
        "recipes/record.py": "raise SystemExit\n",
        "recipes/one/run.yaml": "# A run.\n",
        "recipes/one/README.md": "# One recipe\n\nIt says more.\n",
        "recipes/one/deep/rows.csv": "a,b\n",
        "__pycache__/show.cpython-311.pyc": "",
        ".hidden/file.yaml": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_files_of_one_name_are_one_example(made):
    found = {each.name: (each.title, [file.as_posix() for file in each.files]) for each in read_examples(made)}
    assert found == {
        "first": ("The first one. It is short.", ["first.yaml", "rows.jsonl"]),
        "bare": ("`softprompt train bare.yaml`", ["bare.yaml", "rows.jsonl"]),
        "show": ("What it shows.", ["show.py", "show_parts.py", "rows.jsonl"]),
        "other_parts": ("By itself.", ["other_parts.py", "rows.jsonl"]),
        "words": ("Words in a folder.", ["words.yaml", "words/rows.csv", "rows.jsonl"]),
        "recipes/one": (
            "One recipe",
            ["recipes/one/README.md", "recipes/one/run.yaml", "recipes/one/deep/rows.csv", "recipes/shared.csv"],
        ),
    }
    assert [each.name for each in read_examples(made)][-1] == "recipes/one"


def test_every_file_of_the_project_belongs_to_an_example():
    known = read_examples(examples_folder())
    tracked = subprocess.run(["git", "ls-files", "examples"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no git repository here")
    files = {Path(name).relative_to("examples") for name in tracked.stdout.splitlines()}
    files.remove(Path("recipes", "record.py"))  # a tool of the repository
    assert {file for example in known for file in example.files} >= files and len(known) > 5


def test_the_list_names_each_example(tmp_path):
    done = cli("examples", cwd=tmp_path)
    listed = json.loads(cli("examples", "--json", cwd=tmp_path).stdout)
    assert done.returncode == 0 and all(each["name"] in done.stdout for each in listed)
    assert {"movies", "demo"} <= {each["name"] for each in listed}


def test_copies_are_whole_and_are_made_once(tmp_path):
    done = cli("examples", "copy", "definitions_zh", cwd=tmp_path)
    assert done.returncode == 0 and "examples: 4 files copied" in done.stdout
    for file in (copied := tmp_path / "examples").rglob("*.*"):
        assert file.read_bytes() == (ROOT / "examples" / file.relative_to(copied)).read_bytes()
    told = json.loads(cli("examples", "copy", "--json", cwd=tmp_path).stdout)
    assert len(told["files"]) == len(told["copied"]) + 4
    assert {file.name for file in copied.iterdir()} == {
        file.name for file in (ROOT / "examples").iterdir() if file.name != "__pycache__"
    }
    assert "0 files copied" in cli("examples", "copy", "movies", cwd=tmp_path).stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path / "home"))
        assert cli("examples", "copy", "movies", "~/mine", cwd=tmp_path).returncode == 0
    assert (tmp_path / "home" / "mine" / "movies.yaml").is_file() and not (tmp_path / "~").exists()


def test_nothing_is_replaced(tmp_path):
    mine = tmp_path / "here" / "movies.yaml"
    mine.parent.mkdir()
    mine.write_text("base: mine\n")
    refused(cli("examples", "copy", "all", "here", cwd=tmp_path), "here/movies.yaml", "differs")
    assert mine.read_text() == "base: mine\n" and list(mine.parent.iterdir()) == [mine]
    refused(cli("examples", "copy", "moves", cwd=tmp_path), "no example 'moves'", "'movies'")
    refused(cli("examples", "copy", "movies", mine, cwd=tmp_path), "movies.yaml")


def test_listing_imports_neither_torch_nor_an_example():
    code = (
        "import sys; from softprompt.cli.examples import examples_folder, read_examples; read_examples(examples_folder()); "
        "sys.exit(any(name.partition('.')[0] in ('demo', 'torch') or 'examples.' in name for name in sys.modules))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    assert subprocess.run([sys.executable, "-c", code], env=env).returncode == 0
