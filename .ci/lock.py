"""Write constraints.txt: the exact version of every package in the environment that runs this.

A package that needs a newer Python than the project does gets a marker, so that older Pythons choose a version of their own.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
HEAD = """# The versions that the tests were last run with; written by `make lock`, used by `make setup`.
# A requirement that stands nowhere else does not belong here: add it to pyproject.toml first.
"""
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
"""Those that .github/workflows/test.yml runs, the oldest first."""


def line(package: Distribution) -> str:
    """`name==version`, without a local tag, and from which Python on where that is not the oldest."""
    pinned = f"{canonicalize_name(package.metadata['Name'])}=={Version(package.version).public}"
    wanted = SpecifierSet(package.metadata.get("Requires-Python") or "")
    first = next(python for python in PYTHONS if wanted.contains(f"{python}.99"))
    return pinned if first == PYTHONS[0] else f'{pinned} ; python_version >= "{first}"'


def main() -> None:
    """Write the file."""
    lines = {line(package) for package in distributions()}
    others = sorted(one for one in lines if not re.match(r"(softprompt|pip)==", one))
    (ROOT / "constraints.txt").write_text(HEAD + "\n".join(others) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
