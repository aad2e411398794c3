"""The documentation's own promises: pages are listed, links lead somewhere, generated pages are those of the code."""

from __future__ import annotations

import fnmatch
import itertools
import json
import re
import sys
from pathlib import Path

import jsonschema
import prose
import pytest
import typer
import yaml
from markdown_it import MarkdownIt
from test_cli import cli

from softprompt import yaml_file
from softprompt.schema import SCHEMAS, run_schema, task_schema

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
LINKED = [*sorted(ROOT.glob("*.md")), *PAGES, *sorted((ROOT / "examples").rglob("*.md"))]


def make_reference():
    sys.path.insert(0, str(DOCS / "reference"))
    try:
        import make
    finally:
        sys.path.pop(0)
    return make


def test_every_page_is_in_the_contents():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    trees = "\n".join(re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL))
    entries = [line for line in trees.splitlines() if line and not line.startswith(":")]
    names = [path.relative_to(DOCS).with_suffix("").as_posix() for path in PAGES]
    for entry in entries:
        assert fnmatch.filter(names, entry), f"docs/index.md: {entry} is in the contents, and there is no such page"
    reference = (DOCS / "reference" / "index.md").read_text(encoding="utf-8").split()
    for name in names:
        listed = name == "index" or any(fnmatch.fnmatch(name, entry) for entry in entries)
        inner = name.startswith("reference/") and name.partition("/")[2] in reference
        assert listed or inner, f"docs/{name}.md is in no list of docs/index.md; add it there"


def anchors(text: str) -> set[str]:
    """What GitHub, and MyST like it, call the headings of a page."""
    names: dict[str, int] = {}
    tokens = MarkdownIt("commonmark").parse(text)
    slugs = set()
    for token, inline in itertools.pairwise(tokens):
        if token.type != "heading_open":
            continue
        shown = "".join(child.content for child in inline.children or [] if child.type in ("text", "code_inline"))
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        count = names[slug] = names.get(slug, -1) + 1
        slugs.add(f"{slug}-{count}" if count else slug)
    return slugs


def links(text: str):
    """Line and target of each link, of pictures too, outside of code."""
    for block in MarkdownIt("commonmark").enable("table").parse(text):
        for child in block.children or []:
            target = child.attrGet("href") or child.attrGet("src")
            if target and not re.match(r"[a-z]+:", str(target)):
                yield 1 + (block.map or [0])[0], str(target)


def broken(page: Path) -> list[str]:
    """`file:line: …` for each link of a page that leads nowhere."""
    faults = []
    for line, target in links(page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        where = f"{page.relative_to(ROOT)}:{line}: {target}"
        if not file.exists():
            faults.append(f"{where}: no such file")
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8")):
            faults.append(f"{where}: that page has no such heading")
    return faults


@pytest.mark.parametrize("page", LINKED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    assert not broken(page), "\n".join(broken(page))


def test_links_that_lead_nowhere_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "other.md").write_text("# One `thing`, twice\n\n# One `thing`, twice\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md#one-thing-twice-1) [b](https://example.org)\n\n[c](none.md)\n[d](other.md#two)\n\n`[e](no.md)`\n",
        encoding="utf-8",
    )
    assert broken(page) == [
        "page.md:3: none.md: no such file",
        "page.md:3: other.md#two: that page has no such heading",
    ]


def test_generated_pages_are_those_of_the_code():
    make = make_reference()
    for name, text in make.pages().items():
        kept = (DOCS / "reference" / name).read_text(encoding="utf-8")
        if name == "commands.md" and f"<!-- typer {typer.__version__} -->" not in kept:
            continue  # typer lays its pages out anew in many versions; the pinned one is what `make test` installs
        assert kept == text, f"docs/reference/{name} is not current: python docs/reference/make.py"


def test_the_page_of_commands_knows_no_order_of_imports(monkeypatch):
    """Another test may have imported one verb before the others."""
    from softprompt.cli import import_verbs
    from softprompt.cli.app import app

    make = make_reference()
    page = make.commands_page()
    import_verbs()
    for registered in ("registered_commands", "registered_groups"):
        monkeypatch.setattr(app, registered, getattr(app, registered)[::-1])
    assert make.commands_page() == page


def test_every_command_is_on_its_page():
    from softprompt.cli import import_verbs
    from softprompt.cli.app import app

    import_verbs()
    page = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    for verb in typer.main.get_command(app).commands:
        assert f"\n## `softprompt {verb}`\n" in page, verb


@pytest.mark.parametrize("page", [path for path in PAGES if path.parent.name == "how-to"], ids=lambda path: path.stem)
def test_how_to_pages_are_short(page):
    read = prose.read(page)
    assert not read.faults() and read.lines <= 80


def task_files():
    return [*(ROOT / "softprompt" / "tasks" / "ready").glob("*.yaml"), *(ROOT / "examples").rglob("task.yaml")]


def run_files():
    files = [path for path in (ROOT / "examples").rglob("*.yaml") if path not in task_files()]
    return [path for path in files if {"task", "method"} <= (yaml_file.load(path.read_text("utf-8"), "") or {}).keys()]


def test_the_schemas_take_every_file_of_ours():
    """As editors read them, which know YAML 1.2 and none of our rules for texts."""
    assert len(run_files()) >= 6 and len(task_files()) >= 12
    for files, schema in ((run_files(), run_schema()), (task_files(), task_schema())):
        jsonschema.Draft202012Validator.check_schema(schema)
        for file in files:
            jsonschema.validate(yaml.safe_load(file.read_text(encoding="utf-8")), schema)


@pytest.mark.parametrize(
    "run",
    [
        {"task": "movie-reviews", "method": "infix"},
        {"task": "movie-reviews", "method": "auto", "base": "auto"},
        {
            "task": "movie-reviews",
            "method": {"name": "peft:IA3", "target_modules": ["k_proj"]},
            "base": {"dtype": "bf16"},
        },
        {"task": "movie-reviews", "method": "infix", "train": {"checkpointing": True}},
        {"task": {"name": "t", "template": {"input": "{{ text }}"}, "verbalizer": {1: 2, "b": None}}, "method": "soft"},
        {"task": {"name": "t", "type": "span", "template": {"input": "{{ context }}"}}, "method": "hard"},
    ],
)
def test_the_schema_takes_what_a_run_takes(run):
    jsonschema.validate(run, run_schema())


@pytest.mark.parametrize(
    "run",
    [
        {"task": "movie-reviews"},
        {"task": "movie-reviews", "method": "infixx"},
        {"task": "movie-reviews", "method": {"name": "infix", "lenght": 3}},
        {"task": "movie-reviews", "method": "infix", "train": {"epochs": 0}},
        {"task": "movie-reviews", "method": "infix", "seeds": 1},
        {"task": {"name": "t", "template": {"input": "{{ text }}"}, "tags": ["O"]}, "method": "infix"},
        {
            "task": {"name": "t", "type": "tagging", "template": {"input": "{{ text }}"}, "tag": ["O"]},
            "method": "infix",
        },
    ],
)
def test_the_schema_refuses_what_a_run_refuses(run):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(run, run_schema())


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_whole(name):
    """Every reference leads somewhere, and every key that a person sets is described."""
    schema = SCHEMAS[name]()
    text = json.dumps(schema)
    for target in set(re.findall(r'"\$ref": "#/\$defs/(\w+)"', text)):
        assert target in schema["$defs"], target
    for model, inner in schema["$defs"].items():
        for key, value in inner["properties"].items():
            assert value.get("description"), f"{model}.{key} is not described; its docstring lists Attributes"


def test_the_schema_verb_prints_it(tmp_path):
    done = cli("schema", "run", cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout) == run_schema()
    done = cli("schema", "suite", cwd=tmp_path)
    assert done.returncode == 2 and "'run', 'task'" in done.stderr


def test_a_new_run_file_names_the_schema_beside_it(tmp_path):
    rows = "".join(f"it is {word} {place},{word}\n" for place in range(12) for word in ("good", "bad"))
    (tmp_path / "rows.csv").write_text("text,label\n" + rows, encoding="utf-8")
    done = cli("new", "rows.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, _, rest = (tmp_path / "rows.yaml").read_text(encoding="utf-8").partition("\n")
    schema = tmp_path / first.removeprefix("# yaml-language-server: $schema=")
    jsonschema.validate(yaml.safe_load(rest), json.loads(schema.read_text(encoding="utf-8")))
