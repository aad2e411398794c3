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
from helpers import tiny_rows, tiny_task
from models import tiny_base

from softprompt.errors import ConfigError
from softprompt.methods import MethodSpec

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


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"place": "start"}, r"layout\(\): place: Input should be 'front', 'infix', 'other' or 'none' \(got 'start'\)"),
        ({"stores": "tokens"}, r"layout\(\): stores: Input should be 'embeddings', .* \(got 'tokens'\)"),
        ({"stores": "none"}, r"stores is 'none', but export\(\) gives 'prompt_embeddings'; set stores and place"),
        ({"key": "tokens"}, r"layout embeddings/infix stores the one tensor 'prompt_embeddings', not 'tokens'"),
        ({"length": 3}, r"tensor 'prompt_embeddings' has shape \[8, \d+\], its layout and base give \[3, \d+\]"),
    ],
)
def test_what_no_artifact_could_hold_is_refused_before_the_first_step(own, attributes, message):
    from low_rank import LowRank, LowRankSpec

    import softprompt as sp

    method = type("Odd", (LowRank,), attributes)(LowRankSpec())
    events: list[dict] = []
    with pytest.raises(ConfigError, match=rf"^method 'low_rank' \(\w+\.Odd\): {message}") as refused:
        sp.train(tiny_base(), tiny_task(), method, own / "run", rows=tiny_rows(), on_event=events.append)
    assert "\n" not in str(refused.value) and not any(event["event"] == "step" for event in events)


def test_settings_without_a_name_are_refused_in_one_line():
    class OwnSpec(MethodSpec):
        rank: int = 2

    with pytest.raises(ConfigError, match=r"^OwnSpec: name is missing; .* name: str = '…'$"):
        OwnSpec(rank=3)
    assert OwnSpec(name="own").rank == 2
