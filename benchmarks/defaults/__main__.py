"""Make the data sets, measure the defaults on a folder of CSV files, or report what was measured.

python -m softprompt.benchmarks.defaults sets FOLDER [--clones DIR] [--only trec,subj]
python -m softprompt.benchmarks.defaults FOLDER --out RESULTS [--only infix,lora] [--tasks trec,subj] [--seeds 0-7]
python -m softprompt.benchmarks.defaults report RESULTS

A run whose record exists is not made again, so the same command goes on after Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from softprompt.benchmarks.defaults.contenders import CONTENDERS
from softprompt.benchmarks.defaults.records import read_all
from softprompt.benchmarks.defaults.report import as_markdown
from softprompt.benchmarks.defaults.runs import Settings, make_all
from softprompt.benchmarks.defaults.sets.entries import ENTRIES
from softprompt.benchmarks.defaults.sets.make import make_sets
from softprompt.errors import SoftpromptError
from softprompt.storage import cache_dir

PROGRAM = "python -m softprompt.benchmarks.defaults"
STOPPED = 130  # the exit code of a program that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code is 1 where a run failed, 2 where it could not begin."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["sets"]:
            return _sets(given[1:])
        return _report(given[1:]) if given[:1] == ["report"] else _measure(given)
    except SoftpromptError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on with what is left", file=sys.stderr)
        return STOPPED


def _sets(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} sets", description="Make the data sets from public repositories.")
    parser.add_argument("folder", type=Path, help="the files get into its folders judge and tune")
    parser.add_argument(
        "--clones", type=Path, help="git clones as OWNER/NAME, fetched where missing; default: clones in the cache"
    )
    parser.add_argument("--only", type=_names, default=(), help=f"sets: {', '.join(ENTRIES)}")
    asked = parser.parse_args(arguments)
    make_sets(asked.folder, asked.clones or cache_dir() / "clones", asked.only, partial(print, flush=True))
    return 0


def _report(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} report", description="Tables of a results folder, as Markdown.")
    parser.add_argument("results", type=Path)
    print(as_markdown(read_all(parser.parse_args(arguments).results)))
    return 0


def _measure(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="CSV files with the columns text and label, one a data set")
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    parser.add_argument("--only", type=_names, default=(), help=f"contenders: {', '.join(CONTENDERS)}")
    parser.add_argument("--tasks", type=_names, default=(), help="data sets by name; default: all files")
    parser.add_argument("--seeds", type=_numbers, default=Settings.seeds, help="e.g. 0-7 or 0,3; default: 0-7")
    parser.add_argument("--rows", type=_positive, default=Settings.rows, help="labelled rows of a run")
    parser.add_argument("--test", type=_positive, default=Settings.test, help="test rows at most")
    parser.add_argument("--workers", type=_positive, default=1, help="processes; each loads its own bases")
    asked = parser.parse_args(arguments)
    settings = Settings(asked.folder, asked.out, asked.tasks, asked.only, asked.seeds, asked.rows, asked.test)
    records = make_all(settings, asked.workers, partial(print, flush=True))
    return int(any(record.status == "failed" for record in records))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _numbers(text: str) -> tuple[int, ...]:
    """`0-7`, `0,3` or `0-2,5` as numbers."""
    numbers: list[int] = []
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return tuple(dict.fromkeys(numbers))


if __name__ == "__main__":
    sys.exit(main())
