"""Run the shell commands of a page as a reader would, one after the other in one folder, and keep what came of them.

    python -m softprompt.benchmarks.commands README.md --folder /tmp/reader --out benchmarks/results/commands

Each command that has run stands in OUT/PAGE.json with its exit code, its seconds and, where it left a run, the run's figures. A
second call goes on with those that are left or have failed. `make …`, `pip …` and `git …` are left to a fresh clone.
Pages may read `examples/`, `tickets.csv`, and `new.csv` with ten of its texts: these are put into the folder.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import softprompt
from softprompt.benchmarks import provenance
from softprompt.storage import write_json
from softprompt.training.places import RESULT

RUNNABLE = ("softprompt ", "python ", "torchrun ")
_BLOCK = re.compile(r"^```(?:sh|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands_of(page: str) -> list[str]:
    """The runnable lines of a page's shell blocks, without their comments, each once and as the shell is to read it."""
    blocks = (re.sub(r"\s*\\\n\s*", " ", block) for block in _BLOCK.findall(page))  # a line may go on in the next one
    lines = (re.sub(r"\s+#\s.*", "", line).strip() for block in blocks for line in block.splitlines())
    return list(dict.fromkeys(line for line in lines if line.startswith(RUNNABLE)))


def prepare(folder: Path) -> None:
    """Put what the pages' commands read into the folder."""
    root = Path(__file__).resolve().parents[1]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(root / "examples", folder / "examples", dirs_exist_ok=True)
    shutil.copy(Path(softprompt.__file__).parent / "cli/tickets.csv", folder / "tickets.csv")
    with (folder / "tickets.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:10]
    with (folder / "new.csv").open("w", encoding="utf-8", newline="") as file:
        texts = csv.DictWriter(file, [name for name in rows[0] if name != "team"], extrasaction="ignore")
        texts.writeheader()
        texts.writerows(rows)


def run(command: str, folder: Path) -> dict[str, Any]:
    """Run one command and say what came of it."""
    start = time.perf_counter()
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    )  # this environment's softprompt
    done = subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    entry: dict[str, Any] = {"command": command, "exit_code": done.returncode}
    entry |= {"seconds": time.perf_counter() - start, "when": provenance.now()}
    if done.returncode:
        entry["said"] = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
    words = shlex.split(command)
    result = folder / words[words.index("--out") + 1] / RESULT if "--out" in words else None
    if result is not None and result.is_file():
        entry["metrics"] = json.loads(result.read_text(encoding="utf-8"))["metrics"]
    return entry


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 where a command failed."""
    parser = argparse.ArgumentParser(prog="python -m softprompt.benchmarks.commands", description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help="where the commands run")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the record")
    parser.add_argument("--only", default="", help="run those anew that hold this text, and no others")
    given = parser.parse_args(arguments)
    record = given.out / f"{given.page.stem}.json"
    kept = json.loads(record.read_text(encoding="utf-8"))["commands"] if record.is_file() else []
    ready = {entry["command"]: entry for entry in kept if not entry["exit_code"]}
    commands = commands_of(given.page.read_text(encoding="utf-8"))
    prepare(given.folder)
    for command in commands:
        if (command in ready and not given.only) or given.only not in command:
            continue
        ready[command] = run(command, given.folder)
        print(f"{ready[command]['exit_code']} {ready[command]['seconds']:6.1f} s  {command}", flush=True)
        values = {"format": 1, "page": given.page.name, "commands": [ready[name] for name in commands if name in ready]}
        own, dirty = provenance.commit()
        values |= {"machine": provenance.machine(), "versions": provenance.versions(), "commit": own, "dirty": dirty}
        given.out.mkdir(parents=True, exist_ok=True)
        write_json(record, values)
    return int(any(ready[command]["exit_code"] for command in commands if command in ready))


if __name__ == "__main__":
    sys.exit(main())
