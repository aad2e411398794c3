"""Write constraints.txt: the exact version of every package in the environment that runs this.

A package that needs a newer Python than the project does gets a marker, so that older Pythons choose a version of their own.
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # mypy needs it there

ROOT = Path(__file__).parents[1]
HEAD = """# The versions that the tests were last run with; written by `make lock`, used by `make setup`.
# A requirement that stands nowhere else does not belong here: add it to pyproject.toml first.
"""
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
"""Those that .github/workflows/test.yml runs, the oldest first."""
EXTRAS = ["dev", "docs"]
"""Those that the Makefile installs."""
UNPINNED = {"softprompt", "pip"}


def wanted() -> set[str]:
    """Names of the packages that pyproject.toml asks for, with its own extras followed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras, seen = list(EXTRAS), set()
    requirements = list(map(Requirement, project["dependencies"]))
    while extras:
        if (extra := extras.pop()) not in seen:
            seen.add(extra)
            requirements += map(Requirement, project["optional-dependencies"][extra])
            extras += [more for one in requirements if one.name == "softprompt" for more in one.extras]
    names = {canonicalize_name(one.name) for one in requirements if one.marker is None or one.marker.evaluate()}
    return names - UNPINNED


def line(package: Distribution) -> str:
    """`name==version`, without a local tag, and from which Python on where that is not the oldest."""
    pinned = f"{canonicalize_name(package.metadata['Name'])}=={Version(package.version).public}"
    needs = SpecifierSet(package.metadata.get("Requires-Python") or "")
    first = next(python for python in PYTHONS if needs.contains(f"{python}.99"))
    return pinned if first == PYTHONS[0] else f'{pinned} ; python_version >= "{first}"'


def main() -> str | None:
    """Write the file; returns why it cannot."""
    lines = {canonicalize_name(package.metadata["Name"]): line(package) for package in distributions()}
    if missing := sorted(wanted() - set(lines)):
        return (
            f"not installed: {', '.join(missing)}, so their pins would be lost; first run "
            f"{sys.executable} -m pip install -c constraints.txt -e '.[{','.join(EXTRAS)}]'"
        )
    pins = sorted(pin for name, pin in lines.items() if name not in UNPINNED)
    (ROOT / "constraints.txt").write_text(HEAD + "\n".join(pins) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main())
