"""The page on a method of one's own: its blocks run from top to bottom, and print what stands behind them."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from models import tiny_base

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "own-method.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|toml|text)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def installed(folder: Path) -> None:
    """The page's files in a folder, with the entry points that the page writes, as `pip install` would leave them."""
    files: dict[str, str] = {}
    points = []
    for kind, text in BLOCKS:
        if kind == "python" and (name := re.match(r"# (\w+\.py)\n", text)):
            files[name[1]] = files.get(name[1], "") + text + "\n"
        elif kind == "toml":
            text = text[text.index('[project.entry-points."') :]
            points.append(re.sub(r'project\.entry-points\."(.*?)"', r"\1", text).replace('"', ""))
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    about = folder / "own-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 0.1\n", encoding="utf-8")
    (about / "entry_points.txt").write_text("\n".join(points), encoding="utf-8")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder on the path with the page's files; a tiny base under every name."""
    import softprompt as sp

    installed(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sp, "Base", SimpleNamespace(load=lambda name: tiny_base()))
    yield tmp_path
    for name in ("low_rank", "rating"):
        sys.modules.pop(name, None)


def test_the_page_does_what_it_shows(own):
    values: dict = {}
    printed, shown = io.StringIO(), ""
    for kind, text in BLOCKS:
        if kind == "text":
            shown += text
        elif kind == "python" and not text.startswith("# "):
            with contextlib.redirect_stdout(printed):
                exec(compile(text, "own-method.md", "exec"), values)
    assert printed.getvalue() == shown


def test_a_row_that_is_no_rating_is_refused_by_name(own):
    from softprompt.tasks import Task

    task = Task.load({"name": "stars", "type": "rating", "template": {"input": "{{ text }}", "cue": "\nStars:"}})
    assert task.check_row({"text": "fair", "rating": 3}) is None
    assert task.check_row({"text": "fair", "rating": "six"}) == "rating is 'six'; expected a whole number from 1 to 5"
