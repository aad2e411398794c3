"""`softprompt tutorial`: four commands on a small made-up data set, each shown before it runs."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .console import err, out
from .options import Json
from .outputs import refuse_replacing, tell_json

_DATA = "tickets.csv"
_ASKED = ("I paid twice for one pair of shoes.", "The box came to my neighbour.", "The app shows an empty page.")
_SHORT = ("method=infix", "train.batch_size=8", "train.max_steps=30")
"""Of a training that is to be shown, not to be good: nothing is compared first, and it is not trained to its end."""


@app.command("tutorial", epilog="Examples: `softprompt tutorial`, `softprompt tutorial --out tickets`")
def tutorial_verb(
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to make for it (default: a temporary one, which is named)."),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Base to use instead of the one that `train` proposes.")
    ] = None,
    document: Json = None,
) -> None:
    """See it work in about a minute: train, eval, predict and inspect, on 120 made-up messages to a shop.

    The base is fetched if it is not in the cache yet, which takes longer. Everything stays in one folder.
    """
    refuse_replacing({"--json": document})
    place = _folder(folder)
    (place / _DATA).write_bytes(files("softprompt.cli").joinpath(_DATA).read_bytes())
    (place / "new.csv").write_text("\n".join(["message", *_ASKED]) + "\n", encoding="utf-8")
    out.print(f"{_DATA}: 120 messages to a shop, and the team that each is for. They are made up. In {place}:")
    began, told = time.perf_counter(), []
    for number, (why, command) in enumerate(_commands(base), 1):
        shown = shlex.join(["softprompt", *command])
        out.print(f"\n{number} of 4: {why}\n$ {shown}")
        told.append({"command": shown, "seconds": _run(command, place)})
    seconds = time.perf_counter() - began
    out.print(f"\n{seconds:.0f} s in all. Everything lies in {place}; remove it, or go on with rows of your own:")
    out.print("$ softprompt train YOURS.csv")
    tell_json(document, {"folder": place, "commands": told, "seconds": seconds})


def _commands(base: str | None) -> list[tuple[str, list[str]]]:
    """What each of the four is for, and its arguments."""
    settings = [*_SHORT, *([] if base is None else [f"base={base}"])]
    return [
        (
            "a few learned tokens are put behind each message; the model itself stays as it is. The first steps of a training "
            "will do here",
            ["train", _DATA, "--out", "run", *settings],
        ),
        ("how good is it on messages that it has not seen, and where is it wrong?", ["eval", "run", "--report"]),
        (
            "new messages get their team, as JSON lines or in a table's columns",
            ["predict", "run", "--input", "new.csv"],
        ),
        ("what was learned: one small file, for any number of tasks on one model", ["inspect", "run"]),
    ]


def _folder(asked: Path | None) -> Path:
    """A new folder.

    Raises:
        ConfigError: it is there already.
    """
    from ..errors import ConfigError
    from ..storage import plain_disk_errors

    if asked is None:
        return Path(tempfile.mkdtemp(prefix="softprompt-tutorial-"))
    if asked.exists():
        raise ConfigError(f"--out {asked}: is there already; name a new folder")
    with plain_disk_errors(asked):
        asked.mkdir(parents=True)
    return asked


def _run(command: list[str], folder: Path) -> float:
    """Run a command as a user would, in a process of its own; its seconds. What it says goes where ours goes."""
    sys.stdout.flush()
    began = time.perf_counter()
    unheard = subprocess.DEVNULL if out.quiet else None
    done = subprocess.run([sys.executable, "-m", "softprompt", *command], cwd=folder, stdout=unheard)
    if done.returncode:
        err.print(
            f"`softprompt {command[0]}` ended with code {done.returncode}, so the tutorial ends here; see {folder}"
        )
        raise typer.Exit(done.returncode)
    return time.perf_counter() - began
