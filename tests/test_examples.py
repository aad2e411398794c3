"""The scripts in `examples/` find all that they import; what they do is run by hand (`make demo`)."""

import runpy
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "examples").rglob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_its_imports_are_there(script):
    assert runpy.run_path(str(script), run_name="imported")["main"]
