"""The notebooks run from top to bottom, and the examples of the documentation are real."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from models import tiny_model, tiny_tokenizer

from softprompt.base import Base

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


def sources(name):
    """The code of a notebook's cells."""
    text = (ROOT / "notebooks" / name).read_text(encoding="utf-8")
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]


def printed(notebook):
    """The text of each cell's standard output."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(out["text"] for out in cell.outputs if out.get("name") == "stdout") for cell in cells]


def executed_here(name, folder, monkeypatch, changes, check=""):
    """What `executed` gives, in this process, with tiny bases and, by `changes` of the text, less work."""
    import io
    from contextlib import redirect_stdout

    import matplotlib

    import softprompt as sp

    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copytree(ROOT / "benchmarks" / "results", folder / "benchmarks" / "results")
    (folder / "notebooks").mkdir()
    monkeypatch.chdir(folder / "notebooks")
    monkeypatch.setattr(sp, "Base", SimpleNamespace(load=lambda name: WIDE[name]()))
    matplotlib.use("agg")
    cells = sources(name)
    for before, after in changes:
        assert any(before in cell for cell in cells), before
        cells = [cell.replace(before, after) for cell in cells]
    values, told = {"__name__": "__main__"}, []
    for cell in [*cells, check]:
        out = io.StringIO()
        with redirect_stdout(out):
            exec(compile(cell, name, "exec"), values)
        told.append(out.getvalue())
    return told


def wide(family):
    """A tiny base with room for the notebooks' texts, a token for each byte."""
    model = tiny_model(family)
    sizes = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": 1024}
    config = type(model.config)(**{**sizes, "pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1})
    tokenizer = tiny_tokenizer(frame="masked" if family == "bert" else "")
    tokenizer.model_max_length = 1024
    model = type(model)(config)
    return Base(model.base_model if family == "bert" else model, tokenizer, f"wide-{family}")


WIDE = {"smollm2": lambda: wide("llama"), "minilm": lambda: wide("bert")}


FIRST = """
assert sum(right) >= 0.7 * len(right)
assert abs(table.sum(1) - 1).max() < 1e-5
"""
OWN = """
accuracy = {name: result.metrics["test"].estimate.value for name, result in results.items()}
assert accuracy[4] > accuracy["hard"] and len(moved) == 8
"""


@pytest.mark.full
@pytest.mark.real
@pytest.mark.parametrize(("name", "check"), [("01_first_prompt", FIRST), ("04_own_method", OWN)])
def test_a_lesson_on_its_base(tmp_path, name, check):
    executed(f"{name}.ipynb", tmp_path, check)


def test_a_first_prompt_of_a_tiny_base(tmp_path, monkeypatch):
    """All its cells, with few rows."""
    fewer = [("TRAIN = 80", "TRAIN = 16"), ('"infix", dev=0', '"infix", epochs=1, dev=0')]
    cells = executed_here("01_first_prompt.ipynb", tmp_path, monkeypatch, fewer)
    assert (tmp_path / "notebooks" / "runs" / "first-prompt" / "manifest.json").exists()
    assert "infix_kv" in cells[5] and "True" in cells[5] and cells[6].count("learned ") == cells[6].count("bare ") == 3


def test_a_method_of_ones_own_of_a_tiny_base(tmp_path, monkeypatch):
    """All its cells, with few rows; the method is that of the page."""
    fewer = [
        ('"train": 72, "dev": 0, "test": 48', '"train": 8, "dev": 0, "test": 8'),
        ('"max_steps": 24, "min_steps": 24', '"max_steps": 2, "min_steps": 2'),
    ]
    cells = executed_here("04_own_method.ipynb", tmp_path, monkeypatch, fewer)
    assert "[text]: run once per row, kept" in cells[3] and "rank 4" in cells[4]
    page = (ROOT / "docs" / "own-method.md").read_text(encoding="utf-8")
    (lesson,) = re.findall(r"^class LowRank\(.*", "\n".join(sources("04_own_method.ipynb")), re.MULTILINE | re.DOTALL)
    assert lesson.partition("import softprompt as sp")[0].strip() in page


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


@pytest.mark.full
@pytest.mark.real
def test_question_answering(tmp_path):
    """The loop ends because its criterion holds, what is learned beats what is not, and Chinese is printed as it is."""
    says_what_was_asked(executed("02_question_answering.ipynb", tmp_path, CLAIMS))


def says_what_was_asked(cells):
    """Whether each criterion holds, and the options of two rows as they are in the data."""
    text = "".join(cells)
    assert "\ufffd" not in text and len(re.findall("^the criterion (?:holds|does not hold)", text, re.MULTILINE)) == 3
    lines = (ROOT / "examples" / "definitions_zh" / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {row["term"]: row["choices"] for row in map(json.loads, lines)}
    asked = re.findall("请问“(.+?)”的定义是什么？\n((?:  [A-D]\\. .*\n)+)正确： (.+)", text)
    assert len(asked) == 2
    for term, options, right in asked:
        assert re.findall(r"  [A-D]\. \d\.\d\d (.+?。)", options) == rows[term] and right in rows[term]


def test_question_answering_of_tiny_bases(tmp_path, monkeypatch):
    """All its cells, with few rows; nothing that it claims of its bases holds, and it says so."""
    fewer = [
        ("train=96, dev=48, test=48", "train=8, dev=4, test=4"),
        ("most=6, more=16", "most=2, more=4"),
        ("most=2, more=16", "most=2, more=4"),
        ('parts["train"][:32]', 'parts["train"][:8]'),
        ('parts["dev"][:16]', 'parts["dev"][:2]'),
        ("train=128, dev=64, test=128", "train=8, dev=4, test=4"),
        ("SIZES = 0.5, (64, 128)", "SIZES = 0.5, (4, 8)"),
        ('"epochs": 12', '"epochs": 1'),
    ]
    says_what_was_asked(executed_here("02_question_answering.ipynb", tmp_path, monkeypatch, fewer))


COMPARED = """
assert len(finals) == 23 and table.reference.name == "full" and len(table.lines) == 9
assert table.lines[0].comparison.seeds == (3, 3) and few.seeds == (1, 1)
assert few.p != table.lines[0].comparison.p
"""


@pytest.mark.parametrize("here", [True, pytest.param(False, marks=pytest.mark.full)])
def test_compare_methods(tmp_path, monkeypatch, here):
    """The committed results are read, and the notebook prints what their report says."""
    name = "03_compare_methods.ipynb"
    cells = executed_here(name, tmp_path, monkeypatch, [], COMPARED) if here else executed(name, tmp_path, COMPARED)
    summary = (ROOT / "benchmarks" / "results" / "quick" / "report.md").read_text(encoding="utf-8")
    found = re.findall(r"^(\S+) +(0\.\d{3}) \[", cells[2], re.MULTILINE)
    assert found
    for name, value in found:
        assert re.search(rf"^\| {name}[^|]*\| {float(value) * 100:.1f} \|", summary, re.MULTILINE), name


def test_the_notebooks_are_kept_with_what_they_printed():
    nbformat = pytest.importorskip("nbformat")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        assert "".join(printed(notebook)) and "\ufffd" not in path.read_text(encoding="utf-8")
        assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == list(
            range(1, len(printed(notebook)) + 1)
        )


def test_pages_name_commands_that_exist():
    from typer.main import get_command

    from softprompt.cli import app, import_verbs

    import_verbs()
    verbs = get_command(app).commands
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("README.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    shown = re.findall(r"^softprompt (\w+)(?: (\w+))?", text, re.MULTILINE)
    assert len(set(shown)) >= 8
    for verb, second in shown:
        assert verb in verbs, verb
        if hasattr(verbs[verb], "commands"):
            assert second in verbs[verb].commands, second


def test_tasks_on_pages_are_valid():
    """Those that are shown as a whole file."""
    from softprompt.tasks import Task

    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    blocks = [block for page in pages for block in re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    tasks = [data.get("task", data) for data in map(yaml.safe_load, blocks)]
    tasks = [task for task in tasks if isinstance(task, dict) and {"name", "type", "template"} <= set(task)]
    assert tasks and all(Task.load(task).name for task in tasks)


def test_examples_parse():
    from softprompt.methods import make_method
    from softprompt.tasks import Task
    from softprompt.training import load_run

    for path in (ROOT / "examples").glob("*.yaml"):
        spec = load_run(path, [])
        assert Task.load(spec.task) and make_method(spec.method)


def test_modules_and_functions_stay_small():
    """No module over 300 lines, no function over 60."""
    for folder in ("softprompt", "adapters", "benchmarks", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert len(text.splitlines()) <= 300, path
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"
