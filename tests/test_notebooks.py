"""The notebooks run from top to bottom, and the examples of the documentation are real."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


@pytest.mark.real
@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    shutil.copy(path, tmp_path)
    notebook = nbformat.read(tmp_path / path.name, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "runs" / "first-prompt" / "artifact" / "manifest.json").exists()


def test_readme_names_commands_that_exist():
    from typer.main import get_command

    from softprompt.cli import (  # noqa: F401
        app,
        base,
        bench,
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
