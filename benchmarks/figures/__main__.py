"""Write or check the figures of README and docs: `python -m softprompt.benchmarks.figures [--check | --keys] [PAGES]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from softprompt.benchmarks.figures.check import complaints
from softprompt.benchmarks.figures.keys import Keys
from softprompt.benchmarks.figures.marks import figures, written
from softprompt.errors import SoftpromptError

ROOT = Path(__file__).resolve().parents[2]


def pages(root: Path) -> list[Path]:
    """README, the docs that are written by hand, and the recipes."""
    written_by_hand = (page for page in (root / "docs").rglob("*.md") if not {"reference", "_build"} & set(page.parts))
    return [root / "README.md", *sorted(written_by_hand), *sorted((root / "examples/recipes").rglob("README.md"))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 where a check finds something, 2 where a record is missing."""
    parser = argparse.ArgumentParser(prog="python -m softprompt.benchmarks.figures", description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, help="default: README.md, docs and recipes")
    parser.add_argument("--check", action="store_true", help="change nothing; say what differs, with file and line")
    parser.add_argument("--keys", action="store_true", help="list what can be asked for, with its value now")
    given = parser.parse_args(arguments)
    keys = Keys(ROOT)
    try:
        if given.keys:
            for key in keys.names():
                print(f"{key}\t{keys[key].splitlines()[0]}")
            return 0
        chosen = given.pages or pages(ROOT)
        if given.check:
            told = [line for page in chosen for line in complaints(page, keys)]
            print("\n".join(told) if told else f"{sum(map(_count, chosen))} figures are as their records have them")
            return int(bool(told))
        for page in chosen:
            _write(page, keys)
    except SoftpromptError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _count(page: Path) -> int:
    return len(figures(page.read_text(encoding="utf-8")))


def _write(page: Path, keys: Keys) -> None:
    before = page.read_text(encoding="utf-8")
    after = written(before, keys.__getitem__)
    if after != before:
        page.write_text(after, encoding="utf-8")
        print(f"{page}: written anew")


if __name__ == "__main__":
    sys.exit(main())
