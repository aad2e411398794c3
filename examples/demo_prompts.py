"""The demo's two prompts and nothing else, each in a folder of its name: what the image of the Dockerfile serves.

`python examples/demo_prompts.py --out demo-prompts`, then `softprompt serve demo-prompts`. About a minute on two cores.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from demo import INFIX, ORIGINS, WAYS, WHOLE, Sizes, Splits, load_rows, origin_task, reviews_task

import softprompt as sp
from softprompt.cli.console import out, progress
from softprompt.cli.ending import ended
from softprompt.cli.streams import make_streams_safe
from softprompt.errors import ConfigError


def make(base: sp.Base, rows: dict[str, Splits], to: Path, sizes: Sizes) -> Mapping[str, Path]:
    """Train both; their folders by name.

    Raises:
        ConfigError: the folder is there already.
    """
    if to.exists():
        raise ConfigError(f"--out {to}: is there already; name a new folder")
    (way,) = (way for way in WAYS if way.title == INFIX)
    made = {}
    with tempfile.TemporaryDirectory() as work:
        tasks = {
            "sentiment": reviews_task(rows[next(iter(ORIGINS))], sizes),
            "origin": origin_task(rows, sizes, Path(work) / "texts"),
        }
        for name, (task, some) in tasks.items():
            out.print(f"{name}: {len(some['train'])} rows")
            learned = {split: some[split] for split in ("train", "dev")}
            with progress() as show:
                result = sp.train(
                    base, task, way.method, Path(work) / name, train=way.train, rows=learned, progress=show
                )
            assert result.artifact is not None
            made[name] = Path(shutil.copytree(result.artifact, to / name))
    return made


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo-prompts"), help="folder to make")
    to = parser.parse_args().out
    with progress() as show:
        base = sp.Base.load("smollm2", progress=show)
    for name, folder in make(base, load_rows(), to, WHOLE).items():
        out.print(f"{name}: {folder}")


if __name__ == "__main__":
    make_streams_safe()
    with ended():
        main()
