"""Sessions (`>>>`) in docstrings and on the pages of the reference run, on tiny bases; public names have texts and examples."""

from __future__ import annotations

import ast
import csv
import doctest
import importlib
import inspect
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers import tiny_rows, tiny_task
from models import tiny_base, tiny_model, tiny_tokenizer

import softprompt as sp
from softprompt.base import Base

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [path for folder in ("", "reference", "how-to") for path in sorted((DOCS / folder).glob("*.md"))]
sys.path.insert(0, str(DOCS))
from public import PublicName, public_names  # noqa: E402

NAMES = list(public_names())
SHARE = 0.72
"""Of the public names, with an example that runs. It may only grow."""
KNOWN = {"smollm2": "llama", "minilm": "bert"}
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The current folder of examples: `tickets.csv`, the checkpoint `base`, and runs of two steps in `runs`.

    `runs/movies` is as `softprompt train examples/movies.yaml --out runs/movies` leaves one, `runs/soft` with method=soft,
    and `runs/tickets` as the tutorial does.
    """
    folder = tmp_path_factory.mktemp("examples")
    shutil.copy(str(files("softprompt.cli").joinpath("tickets.csv")), folder)
    tiny_model("llama").save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    task = tiny_task(verbalizer={"positive": "positive", "negative": "negative"})
    labels = {"good": "positive", "bad": "negative"}
    rows = [{**row.values, "label": labels[row.values["label"]]} for row in tiny_rows()["train"]]
    for name, method in (("movies", "infix"), ("soft", "soft")):
        sp.train(tiny_base(), task, method, out=folder / "runs" / name, rows=rows, train={"max_steps": 2})
    with (folder / "tickets.csv").open(encoding="utf-8", newline="") as file:
        tickets = [{"message": row["message"], "label": row["team"]} for row in csv.DictReader(file)]
    words = {row["label"]: row["label"] for row in tickets}
    teams = sp.Task.load({"name": "tickets", "template": {"input": "{{ message }}"}, "verbalizer": words})
    sp.train(tiny_base("bert"), teams, "probe", out=folder / "runs" / "tickets", rows=tickets[:40])
    return folder


@pytest.fixture
def prepared(folder, tmp_path, monkeypatch):
    """Bases that are known by name are tiny; the current folder is a copy of `folder`."""
    from softprompt import estimators

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(Base, "load", lambda name="smollm2", *_, **__: tiny_base(KNOWN[name]))
    monkeypatch.chdir(tmp_path)
    estimators.release()
    yield
    estimators.release()


def session(page: Path) -> str:
    """The sessions of a page, each line where it stands on the page; all else is blank."""
    lines = page.read_text(encoding="utf-8").splitlines()
    fence = ""
    for place, line in enumerate(lines):
        opened = re.match(r"```(\w*)", line)
        if opened:
            fence = "" if fence else opened[1] or "text"
        if opened or fence != "pycon":
            lines[place] = ""
    return "\n".join(lines) + "\n"


def run(text: str, name: str, file: Path, line: int, names: dict) -> None:
    """Run a session; what differs is shown with its file and line."""
    test = doctest.DocTestParser().get_doctest(text, {**names, "__name__": "example"}, name, str(file), line)
    told: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS, verbose=False).run(test, out=told.append)
    assert not told, "".join(told)


@pytest.mark.parametrize("page", [page for page in PAGES if ">>>" in session(page)], ids=lambda page: page.stem)
def test_sessions_on_pages_run(page, prepared):
    run(session(page), page.stem, page, 0, {})


def code_blocks(page: Path):
    """The line and the text of each ```python block."""
    text = page.read_text(encoding="utf-8")
    for block in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield text.count("\n", 0, block.start(1)), block[1]


@pytest.mark.parametrize("page", [page for page in PAGES if [*code_blocks(page)]], ids=lambda page: page.stem)
def test_code_on_pages_is_python_and_imports_what_there_is(page):
    """Blocks that stand for no session, as they need rows or time that a reader has."""
    for line, code in code_blocks(page):
        tree = ast.parse("\n" * line + code, str(page))
        for node in ast.walk(tree):
            ours = isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "softprompt"
            if not ours or (node.module == "softprompt.lm_eval" and find_spec("lm_eval") is None):
                continue
            for each in node.names:
                what = f"{page.relative_to(ROOT)}:{node.lineno}: {node.module} has no {each.name}"
                assert hasattr(importlib.import_module(node.module), each.name), what


@pytest.mark.parametrize("public", [one for one in NAMES if ">>>" in one.doc], ids=lambda one: one.full)
def test_sessions_in_docstrings_run(public, prepared):
    module = sys.modules[public.value.__module__]
    run(public.doc, public.full, public.file, public.line, vars(module))


@pytest.mark.parametrize("public", NAMES, ids=lambda one: one.full)
def test_every_public_name_has_a_docstring(public):
    assert public.doc.strip(), f"{public.file.relative_to(ROOT)}:{public.line}: {public.full} has no docstring"


def methods_of(public: PublicName) -> Iterator[tuple[str, object]]:
    """The public methods and properties of a class, with those of bases of this package."""
    made = public.value
    for owner in getattr(made, "__mro__", ()):
        if owner.__module__.startswith("softprompt"):
            for name, value in vars(owner).items():
                if not name.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
                    yield name, getattr(made, name)


@pytest.mark.parametrize("public", NAMES, ids=lambda one: one.full)
def test_every_public_method_has_a_docstring(public):
    bare = sorted({name for name, value in methods_of(public) if not inspect.getdoc(value)})
    assert not bare, f"{public.file.relative_to(ROOT)}:{public.line}: {public.full}: no docstring in {bare}"


def with_example(names: list[PublicName]) -> list[PublicName]:
    """The names that a session uses: their own docstring's, or one on a page that imports them or reads them off `sp`."""
    code = "\n".join(line for page in PAGES for line in session(page).splitlines() if line.startswith((">>> ", "... ")))
    imported = {
        (package, name.strip())
        for package, listed in re.findall(r"from (softprompt[\w.]*) import ([\w, ]+)", code)
        for name in listed.split(",")
    }
    used = set(re.findall(r"\bsp\.((?:peft\.)?\w+)", code))

    def is_used(one: PublicName) -> bool:
        short = one.full.removeprefix("softprompt.")
        return ">>>" in one.doc or (one.package, one.name) in imported or short in used

    return [one for one in names if is_used(one)]


def test_most_public_names_have_an_example_that_runs():
    shown = with_example(NAMES)
    lacking = sorted({one.full for one in NAMES} - {one.full for one in shown})
    share = len(shown) / len(NAMES)
    assert share >= SHARE, f"{share:.0%} of the public names have an example; these have none: {', '.join(lacking)}"
