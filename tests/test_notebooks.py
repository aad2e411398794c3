"""The notebooks run from top to bottom, and the examples of the documentation are real."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


def executed(name, folder, check=""):
    """What each cell of a notebook printed, run in a copy of the folders around it; `check` runs behind the last cell."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copytree(ROOT / "benchmarks" / "results", folder / "benchmarks" / "results")
    (folder / "notebooks").mkdir()
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(check))
    nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(folder / "notebooks")}}
    ).execute()
    return printed(notebook)


def printed(notebook):
    """The text of each cell's standard output."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(out["text"] for out in cell.outputs if out.get("name") == "stdout") for cell in cells]


@pytest.mark.real
def test_a_first_prompt(tmp_path):
    executed("01_first_prompt.ipynb", tmp_path)
    assert (tmp_path / "notebooks" / "runs" / "first-prompt" / "artifact" / "manifest.json").exists()


CLAIMS = """
assert 1 <= len(looks) <= 6 and all(look.estimate.value < CRITERION for look in looks[:-1])
assert looks[-1].estimate.value >= CRITERION
assert looks[-1].estimate.value > zero.estimate.value and looks[-1].nll < zero.nll
assert test["learned"].estimate.value > test["zero-shot, likelihood"].estimate.value
assert spans[-1].value >= F1
assert spans[-1].value > head.metrics["dev"].estimate.value
assert span_test["prefix and head"].interval[0] > span_test["head alone"].interval[1]
assert all(found.estimate.rows == 48 for found in test.values())
"""


@pytest.mark.real
def test_question_answering(tmp_path):
    """The loop ends because its criterion holds, what is learned beats what is not, and Chinese is printed as it is."""
    cells = executed("02_question_answering.ipynb", tmp_path, CLAIMS)
    text = "".join(cells)
    assert "\ufffd" not in text and len(re.findall("^the criterion (?:holds|does not hold)", text, re.MULTILINE)) == 3
    lines = (ROOT / "examples" / "definitions_zh" / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {row["term"]: row["choices"] for row in map(json.loads, lines)}
    asked = re.findall("请问“(.+?)”的定义是什么？\n((?:  [A-D]\\. .*\n)+)正确： (.+)", text)
    assert len(asked) == 2
    for term, options, right in asked:
        assert re.findall(r"  [A-D]\. \d\.\d\d (.+?。)", options) == rows[term] and right in rows[term]


COMPARED = """
assert len(finals) == 23 and table.reference.name == "full" and len(table.lines) == 9
assert table.lines[0].comparison.seeds == (3, 3) and few.seeds == (1, 1)
assert few.p != table.lines[0].comparison.p
"""


def test_compare_methods(tmp_path):
    """The committed results are read, and the notebook prints what their report says."""
    cells = executed("03_compare_methods.ipynb", tmp_path, COMPARED)
    summary = (ROOT / "benchmarks" / "results" / "quick" / "report.md").read_text(encoding="utf-8")
    for name, value in re.findall(r"^(\S+) +(0\.\d{3}) \[", cells[2], re.MULTILINE):
        assert re.search(rf"^\| {name}[^|]*\| {float(value) * 100:.1f} \|", summary, re.MULTILINE), name


def test_the_notebooks_are_kept_with_what_they_printed():
    nbformat = pytest.importorskip("nbformat")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        assert "".join(printed(notebook)) and "\ufffd" not in path.read_text(encoding="utf-8")
        assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == list(
            range(1, len(printed(notebook)) + 1)
        )


def test_readme_names_commands_that_exist():
    from typer.main import get_command

    from softprompt.cli import (  # noqa: F401
        app,
        base,
        bench,
        compare,
        data,
        distil,
        doctor,
        evaluate,
        importing,
        inspect,
        main,
        merge,
        methods,
        predict,
        prune,
        sweep,
        train,
    )

    verbs = get_command(app).commands
    shown = re.findall(r"^softprompt (\w+)(?: (\w+))?", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(shown) >= 8
    for verb, second in shown:
        assert verb in verbs, verb
        if hasattr(verbs[verb], "commands"):
            assert second in verbs[verb].commands, second


def test_readme_task_is_valid():
    from softprompt.tasks import Task

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert blocks and all(Task.load(yaml.safe_load(block)).name for block in blocks)


def test_examples_parse():
    from softprompt.methods import make_method
    from softprompt.tasks import Task
    from softprompt.training import load_run

    for path in (ROOT / "examples").glob("*.yaml"):
        spec = load_run(path, [])
        assert Task.load(spec.task) and make_method(spec.method)


def test_modules_stay_small():
    """No module over 300 lines."""
    for folder in ("softprompt", "benchmarks", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path
