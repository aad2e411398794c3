"""mypy reads every line of the package, under one name a module, and asks for types everywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # mypy needs it there

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
COPIED = {"softprompt.examples"}
"""Listed so that a wheel holds their files; nothing imports them."""
UNTYPED = "def without_types(value):\n    return value\n"


def folder_of(package: str) -> Path:
    """Where a package's files stand, by pyproject's package-dir."""
    inside: list[str] = []
    while package not in SETTINGS["package-dir"] and "." in package:
        package, _, last = package.rpartition(".")
        inside.insert(0, last)
    return ROOT.joinpath(SETTINGS["package-dir"].get(package, package), *inside)


def modules() -> dict[str, Path]:
    """All modules of the packages that pyproject lists, with their files."""
    files = {
        package: sorted(folder_of(package).glob("*.py")) for package in SETTINGS["packages"] if package not in COPIED
    }
    assert all(files.values())
    return {
        package if file.stem == "__init__" else f"{package}.{file.stem}": file
        for package in files
        for file in files[package]
    }


def mypy(folder: Path, *arguments: str) -> str:
    """What mypy says with the settings of the pyproject.toml that lies in a folder."""
    command = [sys.executable, "-m", "mypy", f"--cache-dir={os.devnull}", *arguments]
    clean = {name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "PYTHONPATH")}
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True).stdout


def test_every_folder_with_code_is_a_package_that_is_installed():
    """A wheel holds what pyproject lists, and nothing more."""
    tops = {folder_of(package) for package in ("softprompt", *SETTINGS["package-dir"]) if package not in COPIED}
    folders = {Path(path) for top in tops for path, _, files in os.walk(top) if any(f.endswith(".py") for f in files)}
    assert folders == {folder_of(package) for package in SETTINGS["packages"] if package not in COPIED}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_mypy_reads_every_line(tmp_path):
    """By mypy's own count of lines. Other packages are passed over, as they take most of its time and count for nothing."""
    said = mypy(ROOT, "--follow-imports=skip", "--no-site-packages", f"--linecount-report={tmp_path}")
    report = tmp_path / "linecount.txt"
    assert report.exists(), said
    counts = [line.split() for line in report.read_text("utf-8").splitlines()]
    read = {module: int(lines) for lines, *_, module in counts if module != "total"}
    there = {module: len(file.read_bytes().splitlines()) for module, file in modules().items()}
    assert {module: lines for module, lines in read.items() if lines} == there  # folders without code have none
    partly = [module for _, _, functions, annotated, module in counts if functions != annotated]
    assert not partly, "functions without types"
    assert not [module for module, file in modules().items() if "# mypy:" in file.read_text("utf-8")], (
        "settings of its own"
    )


@pytest.fixture
def untyped(tmp_path):
    """A tree like the project's, links and settings included, in which each module is one function without types."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file in modules().values():
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(UNTYPED)
    for link in (path for path in (ROOT / "softprompt").iterdir() if path.is_symlink()):
        (tmp_path / link.relative_to(ROOT)).symlink_to(link.readlink())
    return tmp_path


def test_mypy_asks_for_types_in_every_module(untyped):
    """No module is spared by the settings."""
    said = mypy(untyped)
    refused = {(untyped / line.split(":")[0]).resolve() for line in said.splitlines() if "[no-untyped-def]" in line}
    assert refused == {untyped / file.relative_to(ROOT) for file in modules().values()}, said[-2000:]
    wrong = next(file for file in sorted(refused) if file.parent.name == "adapters")
    wrong.write_text("from .nowhere import nothing\n")
    assert 'module named "softprompt.adapters.nowhere"' in mypy(untyped)
