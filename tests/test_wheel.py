"""What is uploaded is whole: the sdist is built from the tree, the wheel from the sdist, and the wheel is used alone.

Its environment takes torch and the other dependencies from the one that runs the tests, and nothing of the project: editable
installs are not followed there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from models import tiny_model, tiny_tokenizer

import softprompt

ROOT = Path(__file__).parents[1]
LEFT_OUT = (".git", ".venv*", ".*_cache", ".hypothesis", "build", "dist", "runs", "demo-output", "*.egg-info")
BUILD = "from setuptools import build_meta; import sys; build_meta.build_{}(sys.argv[1])"
ONE_PROCESS = """
import shlex, sys
from softprompt.cli import main
for line in sys.stdin.read().splitlines():
    sys.argv = shlex.split(line)
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
"""
STEPS = (
    "softprompt new tickets.csv --out run.yaml",
    "softprompt train run.yaml base=base method.length=3 train.max_steps=2 train.batch_size=8 --out run",
    "softprompt predict run --input tickets.csv --output answered.jsonl",
)


class Installed(NamedTuple):
    """A virtual environment with the wheel, and what was built on the way."""

    environment: Path
    wheel: Path
    sdist: Path

    @property
    def bin(self) -> Path:
        return self.environment / ("Scripts" if os.name == "nt" else "bin")


def run(*command, cwd, **options):
    """In a process that knows nothing of the tree: no PYTHONPATH, no network of a hub."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SOFTPROMPT"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, "HF_HUB_OFFLINE": "1", "SOFTPROMPT_CACHE": str(cwd / "cache")},
        capture_output=True,
        text=True,
        encoding="utf-8",
        **options,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the project, as a build leaves files in it."""
    folder = tmp_path_factory.mktemp("tree") / "project"
    left_out = shutil.ignore_patterns(*LEFT_OUT)
    shutil.copytree(
        ROOT, folder, symlinks=True, ignore=lambda at, names: left_out(at, names) if Path(at) == ROOT else set()
    )
    return folder


@pytest.fixture(scope="module")
def installed(tree, tmp_path_factory):
    """The wheel of the sdist, in an environment of its own."""
    work = tmp_path_factory.mktemp("built")
    run(sys.executable, "-c", BUILD.format("sdist"), work, cwd=tree)
    (sdist,) = work.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(work, filter="data")
    run(sys.executable, "-c", BUILD.format("wheel"), work, cwd=work / sdist.name.removesuffix(".tar.gz"))
    (wheel,) = work.glob("*.whl")
    made = Installed(work / "environment", wheel, sdist)
    run(sys.executable, "-m", "venv", "--without-pip", made.environment, cwd=work)
    pip = (sys.executable, "-m", "pip", "--python", made.bin / "python")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=work)
    (packages,) = made.environment.glob("Lib/site-packages" if os.name == "nt" else "lib/python*/site-packages")
    # a folder on the path, whose own .pth files are not read: an editable install of the project stays out
    (packages / "dependencies.pth").write_text(
        "\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    )
    return made


@pytest.fixture
def work(tmp_path):
    """Rows and a tiny base."""
    shutil.copy(ROOT / "softprompt" / "cli" / "tickets.csv", tmp_path)
    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path


def test_it_is_the_wheel_that_runs(installed, tmp_path):
    code = (
        "import json, importlib.metadata as metadata, importlib.util as util; "
        "names = ['softprompt', 'softprompt.adapters', 'softprompt.benchmarks']; "
        "print(json.dumps([*(util.find_spec(name).origin for name in names), "
        "metadata.version('softprompt'), metadata.metadata('softprompt')['Author']]))"
    )
    *files, version, author = json.loads(run(installed.bin / "python", "-c", code, cwd=tmp_path))
    assert all(Path(file).is_relative_to(installed.environment) for file in files)
    assert (version, author) == (softprompt.__version__, "The softprompt authors")
    assert run(installed.bin / "softprompt", "--version", cwd=tmp_path) == f"softprompt {version}\n"


def test_all_files_of_the_packages_are_in_it(installed, tree):
    """All but the records of measurements and the logs, which stay in the repository."""
    with zipfile.ZipFile(installed.wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    there = set()
    for name in ("softprompt", "adapters", "benchmarks", "examples"):
        top = "" if name == "softprompt" else "softprompt/"
        files = [path for path in (tree / name).rglob("*") if path.is_file() and path.suffix != ".pyc"]
        there |= {top + path.relative_to(tree).as_posix() for path in files}
    unpacked = {name for name in there if name.startswith("softprompt/benchmarks/results/")}
    assert unpacked and inside == there - unpacked - {"softprompt/benchmarks/LOG.md"}


def test_the_sdist_holds_what_a_contributor_needs(installed):
    with tarfile.open(installed.sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "Makefile",
        "constraints.txt",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "LICENSE",
        "tests/models.py",
        ".ci/lock.py",
    }
    assert wanted | {"docs/architecture.md", "tests/golden/runs.json", "benchmarks/LOG.md"} <= inside
    assert not [name for name in inside if name.endswith(".pyc")]


def test_examples_come_out_of_it(installed, tmp_path):
    run(installed.bin / "softprompt", "examples", "copy", cwd=tmp_path)
    copied = {path.relative_to(tmp_path / "examples") for path in (tmp_path / "examples").rglob("*") if path.is_file()}
    assert {Path("movies.yaml"), Path("demo.py"), Path("definitions_zh/task.yaml")} <= copied


def answered(work):
    rows = [json.loads(line) for line in (work / "answered.jsonl").read_text("utf-8").splitlines()]
    return len(rows) == 120 and {row["label"] for row in rows} <= {"billing", "delivery", "technical"}


def test_it_proposes_trains_and_predicts(installed, work):
    """In one interpreter, as starting one takes most of the time."""
    run(installed.bin / "python", "-c", ONE_PROCESS, cwd=work, input="\n".join(STEPS))
    assert answered(work)


@pytest.mark.full
def test_its_commands_propose_train_and_predict(installed, work):
    for command in STEPS:
        run(installed.bin / command.split()[0], *command.split()[1:], cwd=work)
    assert answered(work)
