"""What stands round the code is true: versions agree, files that are named exist, CI and the Makefile know the same targets."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import prose
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import softprompt

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # mypy needs it there

ROOT = Path(__file__).parents[1]
PAGES = ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "AGENTS.md"]
LINKED = [*PAGES, "docs/deprecation.md", ".github/PULL_REQUEST_TEMPLATE.md"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
TARGETS = set(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def test_the_version_is_the_same_everywhere():
    released = re.findall(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)$", read("CHANGELOG.md"), re.MULTILINE)
    cited = yaml.safe_load(read("CITATION.cff"))
    assert released[0] == (softprompt.__version__, cited["date-released"])
    assert cited["version"] == softprompt.__version__ and "version" in PROJECT["dynamic"]
    assert re.search(r"^## Unreleased$", read("CHANGELOG.md"), re.MULTILINE)


@pytest.mark.parametrize("name", PAGES)
def test_pages_at_the_top_are_as_readable_as_the_docs(name):
    page = prose.read(ROOT / name)
    assert page.sentences and not page.faults(), "\n".join(page.faults())


def test_what_agents_read_is_short():
    assert len(read("AGENTS.md").splitlines()) <= 60


@pytest.mark.parametrize("name", LINKED)
def test_files_that_a_page_names_exist(name):
    """Links, and code that is a path of this repository and no pattern."""
    folder, text = (ROOT / name).parent, read(name)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    paths = [
        path
        for code in re.findall(r"`([^`\s]+)`", text)
        if re.fullmatch(r"(softprompt|tests|docs|adapters|benchmarks|examples|\.github)/[\w./-]+\w/?", path := code)
        and "NAME" not in path
    ]
    assert not [link for link in links if link and not (folder / link).exists()]
    assert not [path for path in paths if not (ROOT / path).exists()]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_ci_calls_the_makefile_and_nothing_else(workflow):
    jobs = yaml.safe_load(workflow.read_text("utf-8"))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands and all(re.fullmatch(r"make [a-z-]+( [A-Z_]+=\S+)*", command) for command in commands), commands
    assert {command.split()[1] for command in commands} <= TARGETS


def test_every_make_command_of_the_pages_is_a_target():
    named = {target for name in PAGES for target in re.findall(r"(?:`|^)make ([a-z-]+)", read(name), re.MULTILINE)}
    assert named and named <= TARGETS


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_setup_restores_the_links_that_an_sdist_lacks(tmp_path):
    """Without an environment: with one that is ready, the links are all that is left to do."""
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for name in ("softprompt", "adapters", "benchmarks"):
        (tmp_path / name).mkdir()
    for name in ("pyproject.toml", "constraints.txt", "ready/.ready"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for _ in range(2):
        subprocess.run(["make", "setup", "VENV=ready"], cwd=tmp_path, check=True, capture_output=True)
    for name in ("adapters", "benchmarks"):
        assert (tmp_path / "softprompt" / name).resolve() == (tmp_path / name).resolve()


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_the_index_of_torch_stands_beside_the_usual_one():
    """Alone it would have to hold the pinned version of each package that torch needs."""
    command = ["make", "--dry-run", "setup", "VENV=none", "TORCH_INDEX=https://example.org/cpu"]
    steps = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    (torch,) = (step for step in steps if "'torch>=" in step)
    assert "-c constraints.txt" in torch and torch.endswith(" --extra-index-url https://example.org/cpu")


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_issue_forms_have_what_the_host_asks_for(form):
    content = yaml.safe_load(form.read_text("utf-8"))
    if form.stem == "config":
        assert set(content) <= {"blank_issues_enabled", "contact_links"}
        return
    assert content["name"] and content["description"]
    for field in content["body"]:
        assert field["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert field["attributes"]["value" if field["type"] == "markdown" else "label"]
    ids = [field["id"] for field in content["body"] if field["type"] != "markdown"]
    assert ids and len(set(ids)) == len(ids)


def test_every_package_that_make_installs_is_pinned():
    """Those that pyproject.toml names for `dev` and `docs`; what they need in turn stands there too."""
    pins = [Requirement(line) for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) and not pin.url for pin in pins)  # no range, no local tag
    pinned = {canonicalize_name(pin.name): pin for pin in pins}
    assert len(pinned) == len(pins) and "softprompt" not in pinned
    wanted, extras = list(map(Requirement, PROJECT["dependencies"])), ["dev", "docs"]
    while extras:
        more = list(map(Requirement, PROJECT["optional-dependencies"][extras.pop()]))
        extras += [extra for one in more if one.name == "softprompt" for extra in one.extras]
        wanted += [one for one in more if one.name != "softprompt"]
    for one in wanted:
        pin = pinned.get(canonicalize_name(one.name))
        assert pin, f"{one.name} is not in constraints.txt: make lock"
        assert one.specifier.contains(str(pin.specifier).removeprefix("==")), f"{one} against {pin}"


def test_a_plain_install_can_read_the_bundled_base():
    """transformers refuses a GGUF file without either, and the environment of the tests has both by other ways."""
    assert {"gguf", "accelerate"} <= {canonicalize_name(Requirement(one).name) for one in PROJECT["dependencies"]}


def test_the_lock_is_written_from_the_environment(tmp_path):
    """By the script of `make lock`, in a copy: each installed package once, no path and no host."""
    script = tmp_path / ".ci" / "lock.py"
    script.parent.mkdir()
    script.write_text(read(".ci/lock.py").replace('"dev", "docs"', '"dev"'))  # `make test` installs no more
    (tmp_path / "pyproject.toml").write_text(read("pyproject.toml"))
    subprocess.run([sys.executable, script], check=True)
    lines = (tmp_path / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert any(re.fullmatch(r"torch==[\d.]+( ; .*)?", pin) for pin in pins)
    assert pins == sorted(pins) and not [line for line in lines if "/" in line or "softprompt" in line]

    (tmp_path / "pyproject.toml").write_text(
        read("pyproject.toml").replace('"pytest>=8"', '"pytest>=8", "no-such-one"')
    )
    (tmp_path / "constraints.txt").write_text("kept")
    refused = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert refused.returncode == 1 and "not installed: no-such-one" in refused.stderr
    assert (tmp_path / "constraints.txt").read_text() == "kept"
